"""Evaluation of several pipelines on one test collection, each in a process of its own, and the results on disk."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numpy as np

from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.models.checkpoints.files import hub_commit, reading_fingerprint
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.errors import InvalidInputError, MissingExtraError, RerankError
from rerank_integrations.evaluation.data import Dataset, Facts, load_dataset
from rerank_integrations.evaluation.measuring import Measured, measure
from rerank_integrations.evaluation.pipelines import EncoderKind, ModelKind, Pipeline, check_counts
from rerank_integrations.evaluation.vectors import PooledEncoder, are_stored, full_name, open_vectors, store_vectors

# To be raised whenever a change to the measuring makes old results incomparable.
_RULES = "4"
_PACKAGES = ("bm25s", "ir_measures", "matplotlib", "scipy", "Stemmer", "yaml")


def identity(pipeline: Pipeline, data: Dataset, callers: Sequence[int]) -> dict[str, object]:
    """Return the settings by which a stored result is recognised: pipeline, model files, collection and callers."""
    models = {f"{kind} {name}": model_identity(kind, name) for kind, name in pipeline.models()}
    return {
        "rules": _RULES,
        "pipeline": pipeline.options(),
        "models": models,
        "data": data.facts(),
        "callers": list(callers),
    }


def model_identity(kind: ModelKind, name: str) -> str:
    """Return the identity of a model's files: a fingerprint, or its commit if the model is on the hub."""
    options = LoadOptions(full_name(name) if kind == "dense" else name)
    # The files of a model on the hub may not be downloaded yet.
    return reading_fingerprint(options, kind) if options.is_local else hub_commit(options)


def require_installed() -> None:
    """Raise `MissingExtraError` unless all packages that an evaluation and its report need are installed."""
    if not all(map(importlib.util.find_spec, _PACKAGES)):
        raise MissingExtraError("evaluate", "evaluation")


P = ParamSpec("P")
T = TypeVar("T")

# Stored beside the results, so that a report can be made without the collection.
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
    """Measure pipelines and store each result in a file of the folder `out`, and the judgements beside them.

    A pipeline is not run again if its result for the same collection and settings is stored already, so a stopped
    evaluation continues where it was.

    Parameters
    ----------
    queries
        As in `load_dataset`.
    callers
        Numbers of concurrent callers for the queries per second.
    command
        The command that a report names as the origin of the results.

    Raises
    ------
    InvalidInputError
        If the collection is damaged, two pipelines have one name or one that is reserved, or `callers` are not
        distinct whole numbers above 0; before any model is loaded.
    CheckpointError, MissingExtraError
        If a model cannot be found, or a package that will be needed is not installed; also before any model is loaded.
    RerankError
        If the system ended the process of a pipeline, perhaps for lack of memory.
    """
    require_installed()
    # All checks first, so that no model is loaded for a damaged collection.
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
        result = _stored_result(file, settings)
        if result is None:
            vectors = _vectors(Path(out), data, pipeline)
            title = f"{pipeline.name} ({number} of {len(pipelines)})"
            result = _in_own_process(title, _measured, data, pipeline, tuple(callers), vectors, title)
            result = replace(result, origin={**result.origin, "command": command})
            _write(file, {"settings": settings, "measured": result.to_json()})
        results.append(result)
    shutil.rmtree(Path(out) / _VECTORS, ignore_errors=True)
    return results


def read_results(out: str | Path) -> list[Measured]:
    """Read the results that `evaluate` stored in a folder, in the order of the files' names.

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
    """Read one result that `evaluate` or `keep_result` wrote.

    Raises
    ------
    InvalidInputError
        If it is not one.
    """
    return _read(Path(file))[1]


def keep_result(file: str | Path, measured: Measured) -> None:
    """Store a measurement as `evaluate` does; in the same folder, it is read and reported with the others.

    Parameters
    ----------
    file
        A path that ends in ``.json``. An existing file is replaced; missing folders are created.

    Raises
    ------
    InvalidInputError
        For another ending, which `read_results` would not find, and for a name that `evaluate` uses itself.
    """
    path = Path(file)
    if path.suffix != ".json":
        raise InvalidInputError(f"{path} ends in {path.suffix!r}; expected .json")
    if path.name in _RESERVED:
        raise InvalidInputError(f"{path} is a name that an evaluation uses itself; expected another")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without settings, so that it never counts as the result of a pipeline of the same name.
    _write(path, {"settings": None, "measured": measured.to_json()})


def read_judgements(out: str | Path) -> tuple[Facts, dict[str, dict[str, int]]]:
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
        return cast("Facts", dict(record["data"])), qrels
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{file} does not hold a collection's judgements: {error!r}") from error


def _vectors(out: Path, data: Dataset, pipeline: Pipeline) -> dict[tuple[str, str], Path]:
    """Encode the passages with a pipeline's models, unless another pipeline has done so; return the folders."""
    folders: dict[tuple[str, str], Path] = {}
    for kind, name in pipeline.indexed_models():
        files_identity = model_identity(kind, name)
        # Different names of models may become the same name of a folder.
        tail = f"{files_identity[:8]}-{data.facts()['crc32']}"
        folder = folders[kind, name] = out / _VECTORS / f"{kind}-{_slug(name)}-{tail}"
        # Checked here too, since a process takes seconds to start.
        if not are_stored(folder, files_identity):
            _in_own_process(f"encoding by {name}", _encode, folder, files_identity, kind, name, data)
    return folders


def _encode(folder: Path, identity: str, kind: EncoderKind, name: str, data: Dataset) -> None:
    if kind == "dense":
        store_vectors(folder, identity, PooledEncoder(name).encode, data.passages, np.float32)
    else:
        store_vectors(folder, identity, ColBERTModel(name).encode_documents, data.passages, np.float16)


def _in_own_process(what: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a new process, so that the peak memory measured there is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(work, *args, **kwargs).result()
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


def _stored_result(file: Path, expected: dict[str, object]) -> Measured | None:
    if not file.is_file():
        return None
    settings, measured = _read(file)
    # Compared as JSON, which has no tuples.
    return measured if settings == json.loads(json.dumps(expected)) else None


def _write(file: Path, record: Mapping[str, object]) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(file)


def _read(file: Path) -> tuple[object, Measured]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return record["settings"], Measured.from_json(record["measured"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{file} is not the result of an evaluation: {error}") from error


def _slug(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name)
