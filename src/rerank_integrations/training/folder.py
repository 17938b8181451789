"""The folder of a fit: what it keeps to go on from, and in the end the checkpoint."""

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
# The settings again, in the finished checkpoint: the same fit is not done twice.
_RECORD = "training.json"


class FitFolder:
    """A new folder, one where a fit was stopped, or one that holds a fit's checkpoint.

    Until the checkpoint is whole, all is in its folder ``unfinished``: ``settings.json``, the trainer's
    ``checkpoint-*``, and in the end ``trained``, which is moved out. A fit that is killed at any moment can go on.

    Parameters
    ----------
    out
        The folder. Nothing is made before `begin`.

    Raises
    ------
    InvalidInputError
        If it holds something else.
    """

    def __init__(self, out: Path) -> None:
        self.work = out / "unfinished"
        self._out, self._record, self._trained = out, out / _RECORD, self.work / "trained"
        ours = self._record.is_file() or self._trained.is_dir()
        if out.exists() and not ours and (not out.is_dir() or any(path != self.work for path in out.iterdir())):
            raise InvalidInputError(f"{out} exists already; expected a new folder, or one where a fit was stopped")

    def require_same(self, settings: Mapping[str, object]) -> None:
        """Raise `InvalidInputError` if the fit that is here, finished or not, had other `settings`; they are JSON."""
        held = self._held()
        if held is None:
            return
        names = [name for name in {**held, **settings} if held.get(name) != settings.get(name)]
        if names:
            told = ", ".join(f"{name} {held.get(name)!r} and not {settings.get(name)!r}" for name in names)
            raise InvalidInputError(f"{self._out} holds a fit with {told}; expected the same, or a new folder")

    def _held(self) -> dict[str, object] | None:
        """Return the settings of the fit that is here; ``None`` if it kept nothing to go on from."""
        if not self._record.is_file() and not self._trained.is_dir() and self.newest_checkpoint() is None:
            return None
        file = self._record if self._record.is_file() else self.work / _SETTINGS
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{file} does not hold a fit's settings ({error}); use a new folder") from error
        if not isinstance(held, dict):
            raise InvalidInputError(f"{file} does not hold a fit's settings but {held!r}; use a new folder")
        return held

    def begin(self, settings: Mapping[str, object]) -> bool:
        """Put right what a kill left half done, and return whether there is something to fit.

        If so, `work` is there with `settings` in it.
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
        """Return the trainer's newest checkpoint that is whole, or ``None``."""
        steps = {path: _step(path) for path in self.work.glob("checkpoint-*")}
        return max((path for path in steps if steps[path] >= 0), key=steps.__getitem__, default=None)

    def keep(self, model: BaseModel) -> None:
        """Write a sentence-transformers model into its place, and drop what was kept for going on."""
        saving = self.work / "saving"
        shutil.rmtree(saving, ignore_errors=True)
        model.save_pretrained(str(saving))
        shutil.copyfile(self.work / _SETTINGS, saving / _RECORD)
        # By this name it is whole.
        saving.replace(self._trained)
        self._move()

    def _move(self) -> None:
        # The record last: where it is, everything is.
        for path in sorted(self._trained.iterdir(), key=lambda path: path.name == _RECORD):
            path.replace(self._out / path.name)
        shutil.rmtree(self.work)


def _step(checkpoint: Path) -> int:
    """Return the step at which a checkpoint was kept, or -1 if a kill left it without its last file."""
    try:
        return int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1
