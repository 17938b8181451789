"""What stands before the first step of a fit: all that can be refused is refused there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.models.checkpoints.files import reading_fingerprint
from rerank_integrations.core.models.checkpoints.options import LoadOptions, resolve_device
from rerank_integrations.core.models.loading import load_guarded, position_limit
from rerank_integrations.errors import InvalidInputError, MissingExtraError
from rerank_integrations.training.fitting import Fitting
from rerank_integrations.training.folder import FitFolder
from rerank_integrations.training.pairs import Example

Sources = Mapping[str, Sequence[Example]]


@dataclass(frozen=True)
class Job:
    """What is to be fitted: a sentence-transformers model in float32, on which examples, and its folder, begun."""

    model: Any
    dataset: Any
    folder: FitFolder


def prepare(
    kind: str,
    load: Callable[[LoadOptions, str], Any],
    base: str | Path,
    sources: Sources,
    out: str | Path,
    fitting: Fitting,
    *,
    teacher: ColBERTModel | None = None,
    check_only: bool = False,
) -> Job | None:
    """Return what is to be fitted; ``None`` if it is fitted already, or with `check_only`, which writes nothing.

    Parameters
    ----------
    kind
        ``"colbert"`` or ``"cross-encoder"``.
    load
        Given how and on which device, returns the model.
    base, sources, out, fitting, teacher
        As of `train_cross_encoder`, with its errors.
    """
    require_training()
    folder = FitFolder(Path(out))
    options = LoadOptions(str(base), dtype="float32")
    model = load_guarded(options, lambda: load(options, resolve_device(None)))
    _require_positions(options, model, fitting)
    dataset = _as_dataset(sources, fitting.negatives)
    settings = {
        "kind": kind,
        # Of the files: a model on the hub has been fetched by now.
        "base": reading_fingerprint(options, kind),
        "teacher": None if teacher is None else teacher.fingerprint,
        "pairs": _checksum(sources),
        **asdict(fitting),
    }
    folder.require_same(settings)
    if check_only or not folder.begin(settings):
        return None
    return Job(model, dataset, folder)


def require_training() -> None:
    """Raise `MissingExtraError` if what fitting needs is not installed."""
    try:
        import accelerate  # noqa: F401
        import datasets  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("train", "training") from error


def _require_positions(options: LoadOptions, model: Any, fitting: Fitting) -> None:
    limit = position_limit(model[0])
    if limit is not None and fitting.max_length > limit:
        raise InvalidInputError(
            f"max_length is {fitting.max_length}; expected at most {limit}, the positions of {options.name_or_path!r}"
        )


def _as_dataset(sources: Sources, negatives: int) -> Any:
    """Return the examples as columns query, positive, negative_1, ...: one `datasets.Dataset` a source."""
    from datasets import Dataset, DatasetDict

    for name, some in sources.items():
        fewest = min((len(example.negatives) for example in some), default=-1)
        if fewest < negatives:
            what = "no example" if fewest < 0 else f"an example of {fewest} negatives"
            raise InvalidInputError(f"{name!r} has {what}; expected examples of {negatives} each (mine_negatives)")
    return DatasetDict({name: Dataset.from_list([_row(example) for example in some]) for name, some in sources.items()})


def _row(example: Example) -> dict[str, str]:
    negatives = {f"negative_{number}": text for number, text in enumerate(example.negatives, start=1)}
    return {"query": example.query, "positive": example.positive, **negatives}


def _checksum(sources: Sources) -> str:
    """Return 16 hexadecimal digits of all examples in their order, which a fit depends on."""
    digest = hashlib.sha256()
    for name, some in sources.items():
        for example in some:
            line = json.dumps([name, example.query, example.positive, *example.negatives])
            digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:16]
