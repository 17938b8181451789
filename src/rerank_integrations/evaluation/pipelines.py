"""Pipelines to measure: a retriever and the rerankers behind it, as presets or declared in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, cast, get_args

from rerank_integrations.errors import InvalidInputError, MissingExtraError

RetrieverKind: TypeAlias = Literal["bm25", "dense", "colbert"]
RerankerKind: TypeAlias = Literal["colbert", "cross-encoder"]
# The kinds of models that encode all passages, and those of all models.
EncoderKind: TypeAlias = Literal["dense", "colbert"]
ModelKind: TypeAlias = Literal["dense", "colbert", "cross-encoder"]
RETRIEVERS: tuple[RetrieverKind, ...] = get_args(RetrieverKind)
RERANKERS: tuple[RerankerKind, ...] = get_args(RerankerKind)
STARTER = "starter"


class RetrieveRecord(TypedDict):
    """A first stage as JSON holds it; a retriever of your own has a kind of its own, and no depth."""

    kind: str
    model: str | None
    depth: int | None
    nbits: int | None


class RerankRecord(TypedDict):
    """A later stage as JSON holds it."""

    kind: RerankerKind
    model: str
    candidates: int
    nbits: int | None


class PipelineRecord(TypedDict):
    """A pipeline as JSON holds it."""

    name: str
    retrieve: RetrieveRecord
    rerank: Sequence[RerankRecord]


@dataclass(frozen=True)
class Retrieve:
    """The first stage.

    Parameters
    ----------
    kind
        ``bm25``; ``dense``, one vector per passage, searched exactly; ``colbert``.
    model
        Name or path, or ``starter``; BM25 has none.
    depth
        Passages per query.
    nbits
        Bits per dimension of a ColBERT index: 1, 2, 4, or ``None`` for exact search.
    """

    kind: RetrieverKind
    model: str | None = None
    depth: int = 100
    nbits: int | None = 2

    def __post_init__(self) -> None:
        _require(self.kind in RETRIEVERS, f"retrieve: kind is {self.kind!r}; expected one of {', '.join(RETRIEVERS)}")
        _require_count(self.depth, "retrieve: depth")
        _require_nbits(self.nbits, "retrieve")
        if self.model is not None:
            _require_name(self.model, "retrieve: model")
            _require(self.kind != "bm25", f"retrieve: model is {self.model!r} for bm25, which has none")


@dataclass(frozen=True)
class Rerank:
    """A later stage: the best `candidates` so far in a new order, the others behind them as they were.

    Parameters
    ----------
    kind
        ``colbert`` or ``cross-encoder``.
    model
        Name or path, or ``starter``.
    candidates
        How many passages it reads.
    nbits
        Bits per dimension (1, 2 or 4) of a ColBERT index that stores the vectors of all passages; ``None`` encodes
        the candidates again for each query.
    """

    kind: RerankerKind
    model: str = STARTER
    candidates: int = 50
    nbits: int | None = None

    def __post_init__(self) -> None:
        _require(self.kind in RERANKERS, f"rerank: kind is {self.kind!r}; expected one of {', '.join(RERANKERS)}")
        _require_count(self.candidates, "rerank: candidates")
        _require_name(self.model, "rerank: model")
        _require_nbits(self.nbits, "rerank")
        _require(
            self.nbits is None or self.kind == "colbert",
            f"rerank: nbits is {self.nbits!r} for a {self.kind}; expected it for colbert alone",
        )


@dataclass(frozen=True)
class Pipeline:
    """A retriever and the rerankers behind it, in their order."""

    name: str
    retrieve: Retrieve
    rerank: tuple[Rerank, ...] = ()

    def __post_init__(self) -> None:
        depth, first = self.retrieve.depth, self.rerank[0].candidates if self.rerank else 0
        _require(first <= depth, f"{self.name}: candidates is {first}; expected at most the {depth} that are retrieved")

    def options(self) -> PipelineRecord:
        """Return the pipeline as JSON can hold it."""
        return cast("PipelineRecord", asdict(self))

    def models(self) -> list[tuple[ModelKind, str]]:
        """Return kind and name of each model: ``colbert``, ``cross-encoder`` or ``dense``."""
        models: list[tuple[ModelKind, str]] = [*self.indexed_models()]
        models += [(stage.kind, stage.model) for stage in self.rerank]
        return list(dict.fromkeys(models))

    def indexed_models(self) -> list[tuple[EncoderKind, str]]:
        """Return kind and name of the models by which all passages are encoded: ``colbert`` or ``dense``."""
        models: list[tuple[EncoderKind, str]] = []
        if self.retrieve.kind != "bm25":
            models.append((self.retrieve.kind, self.retrieve.model or STARTER))
        models += [("colbert", stage.model) for stage in self.rerank if stage.nbits is not None]
        return list(dict.fromkeys(models))


def presets(colbert: str = STARTER, dense: str = STARTER, cross_encoder: str = STARTER) -> dict[str, Pipeline]:
    """Return the ready-made pipelines by their names."""
    bm25, pooled = Retrieve("bm25"), Retrieve("dense", dense)
    by_colbert, by_cross_encoder = Rerank("colbert", colbert, nbits=4), Rerank("cross-encoder", cross_encoder)
    best_ten = Rerank("cross-encoder", cross_encoder, candidates=10)
    pipelines = [
        Pipeline("bm25", bm25),
        Pipeline("dense", pooled),
        *(Pipeline(f"colbert-{bits}bit", Retrieve("colbert", colbert, nbits=bits)) for bits in (1, 2, 4)),
        Pipeline("colbert-exact", Retrieve("colbert", colbert, nbits=None)),
        Pipeline("bm25+colbert", bm25, (by_colbert,)),
        Pipeline("dense+colbert", pooled, (by_colbert,)),
        Pipeline("bm25+cross-encoder", bm25, (by_cross_encoder,)),
        Pipeline("dense+cross-encoder", pooled, (by_cross_encoder,)),
        Pipeline("cascade", bm25, (by_colbert, best_ten)),
    ]
    return {pipeline.name: pipeline for pipeline in pipelines}


def at_candidates(pipelines: Sequence[Pipeline], counts: Sequence[int]) -> list[Pipeline]:
    """Return pipelines with a reranker at each number of candidates, named ``NAME@COUNT``; others as they are.

    The number is that of the first reranker; those behind it keep theirs. A retriever whose depth is lower gets this
    depth.

    Raises
    ------
    InvalidInputError
        If a count is not a whole number above 0 or comes twice, or no pipeline has a reranker.
    """
    check_counts(counts, "candidates")
    _require(
        any(pipeline.rerank for pipeline in pipelines),
        f"none of {', '.join(pipeline.name for pipeline in pipelines)} has a reranker, so it has no candidates",
    )
    expanded: list[Pipeline] = []
    for pipeline in pipelines:
        expanded += [_at(pipeline, count) for count in counts] if pipeline.rerank else [pipeline]
    return expanded


def _at(pipeline: Pipeline, count: int) -> Pipeline:
    first, *later = pipeline.rerank
    deep_enough = replace(pipeline.retrieve, depth=max(pipeline.retrieve.depth, count))
    return Pipeline(f"{pipeline.name}@{count}", deep_enough, (replace(first, candidates=count), *later))


def check_counts(counts: Sequence[object], name: str) -> None:
    """Raise `InvalidInputError` unless `counts` are one or more distinct whole numbers above 0."""
    _require(bool(counts), f"{name} is empty; expected whole numbers above 0")
    for count in counts:
        _require_count(count, name)
    _require(len(set(counts)) == len(counts), f"{name} is {list(counts)}; expected distinct numbers")


def read_pipelines(path: str | Path) -> list[Pipeline]:
    """Read a YAML file: a list of pipelines, each with ``name``, ``retrieve`` and, if wanted, a list ``rerank``.

    Raises
    ------
    InvalidInputError
        For anything but such a list; the message names the file and the pipeline.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("evaluate", "a file of pipelines") from error
    try:
        declared = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from error
    _require(isinstance(declared, list) and bool(declared), f"{path} is not a YAML list of pipelines")
    pipelines = [_pipeline_at(entry, f"{path}, pipeline {number}") for number, entry in enumerate(declared, start=1)]
    names = [pipeline.name for pipeline in pipelines]
    _require(len(set(names)) == len(names), f"{path} has two pipelines of one name; expected distinct ones")
    return pipelines


def _pipeline_at(entry: object, position: str) -> Pipeline:
    try:
        return _pipeline(entry)
    except (InvalidInputError, TypeError) as error:
        raise InvalidInputError(f"{position}: {error}") from error


def _pipeline(entry: object) -> Pipeline:
    fields = _mapping(entry, "a pipeline", {"name", "retrieve", "rerank"})
    name, rerank = fields.get("name"), fields.get("rerank") or []
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"name is {name!r}; expected a string")
    _require(isinstance(rerank, list), f"rerank is {rerank!r}; expected a list")
    retrieve = _mapping(fields.get("retrieve"), "retrieve", {"kind", "model", "depth", "nbits"})
    if "nbits" in retrieve and retrieve.get("kind") != "colbert":
        raise InvalidInputError(f"retrieve: nbits is for colbert; kind is {retrieve.get('kind')!r}")
    later = [Rerank(**_mapping(stage, "rerank", {"kind", "model", "candidates", "nbits"})) for stage in rerank]
    return Pipeline(name, Retrieve(**retrieve), tuple(later))


def _mapping(value: object, what: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{what} is {value!r}; expected a mapping")
    unknown = sorted(str(key) for key in set(value) - known)
    _require(not unknown, f"{what} has the unknown {', '.join(unknown)}; expected {', '.join(sorted(known))}")
    return dict(value)


def _require_nbits(value: object, stage: str) -> None:
    _require(
        value is None or (type(value) is int and value in (1, 2, 4)),
        f"{stage}: nbits is {value!r}; expected 1, 2, 4 or null",
    )


def _require_name(value: object, name: str) -> None:
    _require(isinstance(value, str) and bool(value), f"{name} is {value!r}; expected a name or a path")


def _require_count(value: object, name: str) -> None:
    _require(type(value) is int and value > 0, f"{name} is {value!r}; expected a whole number above 0")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidInputError(message)
