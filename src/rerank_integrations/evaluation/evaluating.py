"""Several pipelines on one test collection, each in a process of its own; what is done already is not done again."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.models.checkpoints.files import hub_commit, reading_fingerprint
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.errors import InvalidInputError, MissingExtraError, RerankError
from rerank_integrations.evaluation.data import Dataset, load_dataset
from rerank_integrations.evaluation.measuring import Measured, measure
from rerank_integrations.evaluation.pipelines import Pipeline, check_counts
from rerank_integrations.evaluation.vectors import PooledEncoder, are_stored, full_name, open_vectors, store_vectors

_RULES = "4"  # raise it when anything is measured in another way
_PACKAGES = ("bm25s", "ir_measures", "matplotlib", "scipy", "Stemmer", "yaml")


def identity(pipeline: Pipeline, data: Dataset, callers: Sequence[int]) -> dict[str, Any]:
    """Return what a result must be of, not to be measured again; its models by their files."""
    models = {f"{kind} {name}": model_identity(kind, name) for kind, name in pipeline.models()}
    return {
        "rules": _RULES,
        "pipeline": pipeline.options(),
        "models": models,
        "data": data.facts(),
        "callers": list(callers),
    }


def model_identity(kind: str, name: str) -> str:
    """Return what tells a model's files from others: a fingerprint, or of a model on the hub its commit."""
    options = LoadOptions(full_name(name) if kind == "dense" else name)
    # On the hub: its files may not all be here yet.
    return reading_fingerprint(options, kind) if options.is_local else hub_commit(options)


def require_installed() -> None:
    """Raise `MissingExtraError` unless all is there that an evaluation and its report need."""
    if not all(map(importlib.util.find_spec, _PACKAGES)):
        raise MissingExtraError("evaluate", "evaluation")


T = TypeVar("T")

# Beside the results, by which a report is made without the collection.
_COLLECTION = "collection.json"
SUMMARY = "summary.json"
_VECTORS = ".vectors"
_RESERVED = (_COLLECTION, SUMMARY)


def evaluate(
    folder: str | Path,
    pipelines: Sequence[Pipeline],
    out: str | Path,
    *,
    split: str = "test",
    queries: int | None = None,
    callers: Sequence[int] = (1, 8),
    command: str | None = None,
) -> list[Measured]:
    """Measure pipelines and keep each result in a file of the folder `out`, and the judgements beside them.

    A pipeline whose result is there already, of the same collection and settings, is not run again: an evaluation that
    was stopped goes on where it was.

    Parameters
    ----------
    queries
        As of `load_dataset`.
    callers
        How many ask at once when queries a second are counted.
    command
        What a report says these were measured by.

    Raises
    ------
    InvalidInputError
        If the collection is damaged, two pipelines have one name or one that is reserved, or `callers` are not
        distinct whole numbers above 0; before any model is loaded.
    CheckpointError, MissingExtraError
        If a model is not to be found, or something that will be needed is not installed; before any is loaded, too.
    RerankError
        If the system ended the process of a pipeline, for want of memory perhaps.
    """
    require_installed()
    # Whole and first: a bad collection is no reason to load a model.
    check_counts(callers, "callers")
    data = load_dataset(folder, split, queries)
    files = [Path(out) / f"{_slug(pipeline.name)}.json" for pipeline in pipelines]
    if len({*files, *(Path(out) / name for name in _RESERVED)}) < len(files) + len(_RESERVED):
        raise InvalidInputError(
            f"{[pipeline.name for pipeline in pipelines]}; expected names that make distinct files, "
            f"other than {' and '.join(_RESERVED)}"
        )
    expected = [identity(pipeline, data, callers) for pipeline in pipelines]
    Path(out).mkdir(parents=True, exist_ok=True)
    _write(Path(out) / _COLLECTION, {"data": data.facts(), "qrels": data.qrels})
    results = []
    for number, (pipeline, file, settings) in enumerate(zip(pipelines, files, expected, strict=True), start=1):
        found = _kept(file, settings)
        if found is None:
            vectors = _vectors(Path(out), data, pipeline)
            title = f"{pipeline.name} ({number} of {len(pipelines)})"
            found = _alone(title, _measured, data, pipeline, tuple(callers), vectors, title)
            found = replace(found, origin=found.origin | {"command": command})
            _write(file, {"settings": settings, "measured": found.to_json()})
        results.append(found)
    shutil.rmtree(Path(out) / _VECTORS, ignore_errors=True)
    return results


def read_results(out: str | Path) -> list[Measured]:
    """Read what `evaluate` kept in a folder, by the names of the files.

    Raises
    ------
    InvalidInputError
        If the folder holds none, or a file is not one.
    """
    files = sorted(file for file in Path(out).glob("*.json") if file.name not in _RESERVED)
    if not files:
        raise InvalidInputError(f"{out} holds no results; expected the folder that an evaluation wrote")
    return [read_result(file) for file in files]


def read_result(file: str | Path) -> Measured:
    """Read one file of those that `evaluate` or `keep_result` wrote.

    Raises
    ------
    InvalidInputError
        If it is not one.
    """
    return _read(Path(file))[1]


def keep_result(file: str | Path, measured: Measured) -> None:
    """Write a measurement as `evaluate` keeps its own; beside those, it is read and reported with them.

    Parameters
    ----------
    file
        Ends in ``.json``. What stands there is replaced; folders that are missing are made.

    Raises
    ------
    InvalidInputError
        For another ending, which `read_results` would not find, and for a name that `evaluate` uses otherwise.
    """
    path = Path(file)
    if path.suffix != ".json":
        raise InvalidInputError(f"{path} ends in {path.suffix!r}; expected .json")
    if path.name in _RESERVED:
        raise InvalidInputError(f"{path} is a name that an evaluation uses itself; expected another")
    path.parent.mkdir(parents=True, exist_ok=True)
    # No pipeline of the same name is taken to be measured by it.
    _write(path, {"settings": None, "measured": measured.to_json()})


def read_judgements(out: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """Read the facts and the qrels of the collection that `evaluate` measured last into a folder.

    Raises
    ------
    InvalidInputError
        If the folder does not hold them.
    """
    file = Path(out) / _COLLECTION
    if not file.is_file():
        raise InvalidInputError(f"{file} is missing; evaluating again writes it, and keeps the results that are there")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        qrels = {query: {key: int(grade) for key, grade in judged.items()} for query, judged in record["qrels"].items()}
        return dict(record["data"]), qrels
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{file} does not hold a collection's judgements: {error!r}") from error


def _vectors(out: Path, data: Dataset, pipeline: Pipeline) -> dict[tuple[str, str], Path]:
    """Encode the passages by a pipeline's models, unless another pipeline has; return where they are."""
    folders = {}
    for kind, name in pipeline.indexed_models():
        known_by = model_identity(kind, name)
        # Names may be alike once they are made names of folders.
        tail = f"{known_by[:8]}-{data.facts()['crc32']}"
        folder = folders[kind, name] = out / _VECTORS / f"{kind}-{_slug(name)}-{tail}"
        # Asked here too: a process takes seconds to start.
        if not are_stored(folder, known_by):
            _alone(f"encoding by {name}", _encoded, folder, known_by, kind, name, data)
    return folders


def _encoded(folder: Path, identity: str, kind: str, name: str, data: Dataset) -> None:
    if kind == "dense":
        store_vectors(folder, identity, PooledEncoder(name).encode, data.passages, np.float32)
    else:
        store_vectors(folder, identity, ColBERTModel(name).encode_documents, data.passages, np.float16)


def _alone(what: str, work: Callable[..., T], *arguments: Any) -> T:
    """Run `work` in a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise RerankError(
                f"{what}: its process ended without an answer; for want of memory perhaps, or in a script that calls "
                'this outside of `if __name__ == "__main__"`'
            ) from error


def _measured(
    data: Dataset, pipeline: Pipeline, callers: tuple[int, ...], vectors: dict[tuple[str, str], Path], title: str
) -> Measured:
    opened = {model: open_vectors(folder) for model, folder in vectors.items()}
    return measure(pipeline, data, callers, vectors=opened, title=title)


def _kept(file: Path, expected: dict[str, Any]) -> Measured | None:
    if not file.is_file():
        return None
    settings, found = _read(file)
    # By way of JSON, which knows no tuples.
    return found if settings == json.loads(json.dumps(expected)) else None


def _write(file: Path, record: dict[str, Any]) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(file)


def _read(file: Path) -> tuple[Any, Measured]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return record["settings"], Measured.from_json(record["measured"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{file} is not the result of an evaluation: {error}") from error


def _slug(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name)
