"""Any retriever on a test collection: LangChain's, LlamaIndex's or a function, told by what they can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.data import Dataset
from rerank_integrations.evaluation.measuring import STAGES, Measured, measure_asking, timed


def measure_retriever(
    name: str,
    retriever: Any,
    data: Dataset,
    callers: Sequence[int] = (1, 8),
    *,
    build_s: float | None = None,
    index_bytes: int | None = None,
) -> Measured:
    """Ask a retriever all queries of a collection, as `measure` asks a pipeline.

    A result is known by the first of these that is a passage's id: ``_id`` in its metadata, ``id`` or ``node_id``,
    ``id`` in its metadata, and the source of a LlamaIndex node (``ref_doc_id``). So chunks count as the passage that
    they were cut from; of several chunks of one passage the first counts and those behind move up.

    Parameters
    ----------
    name
        What reports call it.
    retriever
        Anything with LangChain's ``invoke(text)`` or LlamaIndex's ``retrieve(text)``, or a function from a text to an
        iterable of results; each of them a document, a node or an id. Best first. As many as it gives are counted:
        have it give 100, or recall@100 is that of fewer.
    data
        Its queries are asked; its passages must be in the retriever already.
    callers
        How many at once ask for the queries a second; ``(1,)`` for what several threads must not call.
    build_s, index_bytes
        What building took in seconds, and how large the index is, if you know and want it reported.

    Returns
    -------
    Measured
        Whole calls count as ``retrieve``: nothing is known of their stages. `Measured.pipeline` has the fields of
        other pipelines; ``kind`` of ``retrieve`` is ``langchain``, ``llama-index`` or ``function``, ``model`` the
        retriever's class or the function.

    Raises
    ------
    InvalidInputError
        For an empty name, callers below 1, what is no retriever, a result without an id, or one with an id that the
        collection does not hold.
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"name is {name!r}; expected a string")
    if not all(type(count) is int and count > 0 for count in callers):
        raise InvalidInputError(f"callers is {callers!r}; expected whole numbers above 0")
    kind, ask = _kind_and_call(retriever)
    known = {passage.id for passage in data.passages}

    def asked(text: str) -> tuple[list[str], list[float]]:
        who = f"{name}, asked {text!r}, gave"
        found, ms = timed(lambda: _listed(ask(text), who))
        return _ids(found, known, who), [ms if stage == "retrieve" else 0.0 for stage in STAGES]

    options = {"name": name, "retrieve": _options(kind, retriever), "rerank": []}
    return measure_asking(asked, options, data, callers, build_s=build_s, index_bytes=index_bytes)


def _kind_and_call(retriever: Any) -> tuple[str, Callable[[str], Any]]:
    for kind, method in (("langchain", "invoke"), ("llama-index", "retrieve")):
        call = getattr(retriever, method, None)
        if callable(call):
            return kind, call
    if callable(retriever):
        return "function", retriever
    what = type(retriever).__name__
    raise InvalidInputError(f"retriever is of type {what}; expected one with invoke or retrieve, or a function")


def _options(kind: str, retriever: Any) -> dict[str, Any]:
    named = retriever if hasattr(retriever, "__qualname__") else type(retriever)
    # The fields of a pipeline's first stage, for whoever reads results of both.
    return {
        "kind": kind,
        "model": f"{named.__module__}.{named.__qualname__}",
        "depth": None,
        "nbits": None,
    }


def _listed(found: Any, who: str) -> list[Any]:
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
        raise InvalidInputError(f"{who} one {type(found).__name__}; expected documents, nodes or ids, best first")
    return list(found)


def _ids(found: Sequence[Any], known: set[str], who: str) -> list[str]:
    ids: dict[str, None] = {}
    for result in found:
        names = _names(result)
        if not names:
            raise InvalidInputError(f"{who} a {type(result).__name__} without an id; expected id, node_id or metadata")
        own = next((one for one in names if one in known), None)
        if own is None:
            raise InvalidInputError(
                f"{who} {' or '.join(map(repr, names))}; expected the id of a passage in the collection"
            )
        ids.setdefault(own)
    return list(ids)


def _names(result: Any) -> list[str]:
    """Return all that may be the id of the passage, the surest first."""
    if _is_id(result):
        return [str(result)]
    node = getattr(result, "node", result)
    metadata = getattr(node, "metadata", None)
    fields = metadata if isinstance(metadata, Mapping) else {}
    # A store may have made up ``id``; ``_id`` in the metadata is nothing but the collection's own.
    given = (
        fields.get("_id"),
        getattr(node, "id", None),
        getattr(node, "node_id", None),
        fields.get("id"),
        getattr(node, "ref_doc_id", None),
    )
    return [str(one) for one in given if _is_id(one)]


def _is_id(value: object) -> bool:
    return isinstance(value, str | Integral) and not isinstance(value, bool)
