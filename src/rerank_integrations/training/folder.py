"""The folder of a fit: its intermediate checkpoints, from which it can go on, and finally its result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel

_SETTINGS = "settings.json"
# The settings again, in the finished checkpoint, so that the same fit is not repeated.
_RECORD = "training.json"


class FitFolder:
    """A new folder, that of an interrupted fit, or one with a fit's checkpoint.

    Until the checkpoint is complete, everything is in its folder ``unfinished``: ``settings.json``, the trainer's
    ``checkpoint-*``, and finally ``trained``, which is moved out. A fit that is killed at any moment can go on.

    Parameters
    ----------
    out
        The folder. Nothing is written before `begin`.

    Raises
    ------
    InvalidInputError
        If it contains anything else.
    """

    def __init__(self, out: Path) -> None:
        self.work: Path = out / "unfinished"
        self._out, self._record, self._trained = out, out / _RECORD, self.work / "trained"
        is_fit = self._record.is_file() or self._trained.is_dir()
        if out.exists() and not is_fit and (not out.is_dir() or any(path != self.work for path in out.iterdir())):
            raise InvalidInputError(f"{out} exists already; expected a new folder, or one where a fit was stopped")

    def require_same(self, settings: Mapping[str, object]) -> None:
        """Raise `InvalidInputError` if the fit in this folder, finished or not, had other `settings`; they are JSON."""
        stored = self._stored_settings()
        if stored is None:
            return
        names = [name for name in {**stored, **settings} if stored.get(name) != settings.get(name)]
        if names:
            differences = ", ".join(f"{name} {stored.get(name)!r} and not {settings.get(name)!r}" for name in names)
            raise InvalidInputError(f"{self._out} holds a fit with {differences}; expected the same, or a new folder")

    def _stored_settings(self) -> dict[str, object] | None:
        """Return the settings of the fit in this folder; ``None`` if it stored no checkpoint to go on from."""
        if not self._record.is_file() and not self._trained.is_dir() and self.newest_checkpoint() is None:
            return None
        file = self._record if self._record.is_file() else self.work / _SETTINGS
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{file} does not hold a fit's settings ({error}); use a new folder") from error
        if not isinstance(stored, dict):
            raise InvalidInputError(f"{file} does not hold a fit's settings but {stored!r}; use a new folder")
        return stored

    def begin(self, settings: Mapping[str, object]) -> bool:
        """Repair what a kill left unfinished, and return whether there is something to fit.

        If so, the folder `work` exists with `settings` in it.
        """
        if not self._record.is_file() and self._trained.is_dir():
            self._move()
        if self._record.is_file():
            shutil.rmtree(self.work, ignore_errors=True)
            return False
        self.work.mkdir(parents=True, exist_ok=True)
        newest = self.newest_checkpoint()
        for path in self.work.glob("checkpoint-*"):
            if path != newest:
                shutil.rmtree(path)
        temporary = self.work / f".{_SETTINGS}"
        temporary.write_text(json.dumps(settings, indent=2), encoding="utf-8")
        temporary.replace(self.work / _SETTINGS)
        return True

    def newest_checkpoint(self) -> Path | None:
        """Return the trainer's newest complete checkpoint, or ``None``."""
        steps = {path: _step(path) for path in self.work.glob("checkpoint-*")}
        return max((path for path in steps if steps[path] >= 0), key=steps.__getitem__, default=None)

    def keep(self, model: BaseModel) -> None:
        """Write a sentence-transformers model as the result, and remove the intermediate checkpoints."""
        saving = self.work / "saving"
        shutil.rmtree(saving, ignore_errors=True)
        model.save_pretrained(str(saving))
        shutil.copyfile(self.work / _SETTINGS, saving / _RECORD)
        # Under this name it is complete.
        saving.replace(self._trained)
        self._move()

    def _move(self) -> None:
        # The record is moved last: a folder with a record has everything.
        for path in sorted(self._trained.iterdir(), key=lambda path: path.name == _RECORD):
            path.replace(self._out / path.name)
        shutil.rmtree(self.work)


def _step(checkpoint: Path) -> int:
    """Return the step of a checkpoint, or -1 if a kill left it without its last file."""
    try:
        return int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1
