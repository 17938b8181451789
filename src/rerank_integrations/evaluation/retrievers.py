"""Measurement of your own retriever on a test collection: LangChain's, LlamaIndex's or a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Protocol, TypeAlias

from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.data import Dataset
from rerank_integrations.evaluation.measuring import STAGES, Measured, measure_queries, timed
from rerank_integrations.evaluation.pipelines import PipelineRecord, RetrieveRecord


class LangChainRetriever(Protocol):
    """A retriever as LangChain has it."""

    def invoke(self, input: str, /) -> Iterable[object]:
        """Return documents, best first."""
        ...


class LlamaIndexRetriever(Protocol):
    """A retriever as LlamaIndex has it."""

    def retrieve(self, query: str, /) -> Iterable[object]:
        """Return nodes, best first."""
        ...


Retrieving: TypeAlias = LangChainRetriever | LlamaIndexRetriever | Callable[[str], Iterable[object]]


def measure_retriever(
    name: str,
    retriever: Retrieving,
    data: Dataset,
    callers: Sequence[int] = (1, 8),
    *,
    build_s: float | None = None,
    index_bytes: int | None = None,
) -> Measured:
    """Run all queries of a collection through a retriever, as `measure` does with a pipeline.

    The id of a result is the first of these that is a passage's id: ``_id`` in its metadata, ``id`` or ``node_id``,
    ``id`` in its metadata, and the source of a LlamaIndex node (``ref_doc_id``). So chunks count as the passage that
    they were cut from. Of several chunks of one passage the first counts, and the results behind them move up.

    Parameters
    ----------
    name
        Its name in reports.
    retriever
        Anything with LangChain's ``invoke(text)`` or LlamaIndex's ``retrieve(text)``, or a function from a text to an
        iterable of results, best first: documents, nodes or ids. All results count, so let it return 100, or recall@100
        is that of fewer.
    data
        The collection; its passages must be in the retriever already.
    callers
        Numbers of concurrent callers for the queries per second; ``(1,)`` for a retriever that is not thread-safe.
    build_s, index_bytes
        Seconds to build the index, and its size, if you know them and want them reported.

    Returns
    -------
    Measured
        The time of a whole call counts as ``retrieve``, since its stages are not known. `Measured.pipeline` has the
        fields of other pipelines; ``kind`` of ``retrieve`` is ``langchain``, ``llama-index`` or ``function``, ``model``
        the retriever's class or the function.

    Raises
    ------
    InvalidInputError
        For an empty name, callers below 1, an object that is no retriever, a result without an id, or one with an id
        that the collection does not hold.
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"name is {name!r}; expected a string")
    if not all(type(count) is int and count > 0 for count in callers):
        raise InvalidInputError(f"callers is {callers!r}; expected whole numbers above 0")
    kind, call = _kind_and_call(retriever)
    known = {passage.id for passage in data.passages}

    def ask(text: str) -> tuple[list[str], list[float]]:
        who = f"{name}, asked {text!r}, gave"
        results, ms = timed(lambda: _listed(call(text), who))
        return _ids(results, known, who), [ms if stage == "retrieve" else 0.0 for stage in STAGES]

    record: PipelineRecord = {"name": name, "retrieve": _record(kind, retriever), "rerank": []}
    return measure_queries(ask, record, data, callers, build_s=build_s, index_bytes=index_bytes)


def _kind_and_call(retriever: object) -> tuple[str, Callable[[str], object]]:
    for kind, method in (("langchain", "invoke"), ("llama-index", "retrieve")):
        call = getattr(retriever, method, None)
        if callable(call):
            return kind, call
    if callable(retriever):
        return "function", retriever
    what = type(retriever).__name__
    raise InvalidInputError(f"retriever is of type {what}; expected one with invoke or retrieve, or a function")


def _record(kind: str, retriever: object) -> RetrieveRecord:
    named = retriever if hasattr(retriever, "__qualname__") else type(retriever)
    return {
        "kind": kind,
        "model": f"{named.__module__}.{named.__qualname__}",
        "depth": None,
        "nbits": None,
    }


def _listed(results: object, who: str) -> list[object]:
    if isinstance(results, str | bytes | Mapping) or not isinstance(results, Iterable):
        raise InvalidInputError(f"{who} one {type(results).__name__}; expected documents, nodes or ids, best first")
    return list(results)


def _ids(results: Sequence[object], known: set[str], who: str) -> list[str]:
    ids: dict[str, None] = {}
    for result in results:
        names = _names(result)
        if not names:
            raise InvalidInputError(f"{who} a {type(result).__name__} without an id; expected id, node_id or metadata")
        own = next((name for name in names if name in known), None)
        if own is None:
            raise InvalidInputError(
                f"{who} {' or '.join(map(repr, names))}; expected the id of a passage in the collection"
            )
        ids.setdefault(own)
    return list(ids)


def _names(result: object) -> list[str]:
    """Return all values that may be the id of the passage, the most certain first."""
    if _is_id(result):
        return [str(result)]
    node = getattr(result, "node", result)
    metadata = getattr(node, "metadata", None)
    fields = metadata if isinstance(metadata, Mapping) else {}
    # A vector store may have invented ``id``; ``_id`` in the metadata can only be the collection's own.
    candidates = (
        fields.get("_id"),
        getattr(node, "id", None),
        getattr(node, "node_id", None),
        fields.get("id"),
        getattr(node, "ref_doc_id", None),
    )
    return [str(candidate) for candidate in candidates if _is_id(candidate)]


def _is_id(value: object) -> bool:
    return isinstance(value, str | Integral) and not isinstance(value, bool)
