"""LangChain's documents, compressors, retrievers, callbacks and serialisation, for the checks."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rerank_integrations.testing.drivers import Component, ConformanceError, Item, Native, Recording, Run


class LangChainDriver:
    """The checks' driver of LangChain.

    Parameters
    ----------
    score_key
        The metadata key in which a component returns its score.
    """

    name = "LangChain"

    def __init__(self, score_key: str) -> None:
        self._score_key = score_key

    def documents(self, items: Iterable[Item]) -> list[Native]:
        """Return new documents."""
        from langchain_core.documents import Document

        return [Document(id=item.id, page_content=item.text, metadata=dict(item.metadata)) for item in items]

    def item(self, document: Native) -> Item:
        """Return what the checks read of a document."""
        score = document.metadata.get(self._score_key)
        return Item(document.id, document.page_content, document.metadata, score)

    def metadata(self, document: Native) -> dict[str, Any]:
        """Return the metadata of a document itself."""
        return document.metadata  # type: ignore[no-any-return]

    def texts(self, document: Native) -> list[str]:
        """Return the text of a document."""
        return [document.page_content]

    def snapshot(self, documents: Iterable[Native]) -> str:
        """Return everything about the documents as text."""
        return "\n".join(repr((type(document).__name__, document.model_dump())) for document in documents)

    def rerank(
        self, reranker: Component, documents: Any, query: Any, recording: Recording | None = None
    ) -> list[Native]:
        """Call ``compress_documents``."""
        return list(reranker.compress_documents(documents, query, callbacks=_handlers(recording)))

    async def arerank(
        self, reranker: Component, documents: Any, query: Any, recording: Recording | None = None
    ) -> list[Native]:
        """Call ``acompress_documents``."""
        return list(await reranker.acompress_documents(documents, query, callbacks=_handlers(recording)))

    def retrieve(self, retriever: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        """Call ``invoke``."""
        return list(retriever.invoke(query, config={"callbacks": _handlers(recording)}))

    async def aretrieve(self, retriever: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        """Call ``ainvoke``."""
        return list(await retriever.ainvoke(query, config={"callbacks": _handlers(recording)}))

    @contextmanager
    def recording(self, component: Component) -> Iterator[Recording]:
        """Record by a callback handler, which the call passes on."""
        recording = Recording()
        recording.handlers.append(_handler(recording))
        yield recording

    def written(self, component: Component) -> str:
        """Return the JSON of ``dumpd``.

        Raises
        ------
        ConformanceError
            If LangChain marks a part as not serialisable.
        """
        from langchain_core.load import dumpd

        text = json.dumps(dumpd(component))
        if '"type": "not_implemented"' in text:
            raise ConformanceError("dumpd marks the component, or a part of it, as not_implemented")
        return text

    def read(self, text: str, like: Component) -> Component:
        """Load what `written` returned."""
        from langchain_core._api.beta_decorator import suppress_langchain_beta_warning
        from langchain_core.load import load
        from langchain_core.load.mapping import SERIALIZABLE_MAPPING

        written = json.loads(text)
        paths = list(_constructors(written))
        # LangChain writes some of its own classes under names that they had before.
        located = [SERIALIZABLE_MAPPING.get(path, path) for path in paths]
        classes = [getattr(importlib.import_module(".".join(path[:-1])), path[-1]) for path in located]
        with suppress_langchain_beta_warning():
            return load(written, allowed_objects=classes, valid_namespaces=sorted({path[0] for path in paths}))


def _handlers(recording: Recording | None) -> list[Any] | None:
    return None if recording is None else recording.handlers


def _constructors(written: Any) -> Iterator[tuple[str, ...]]:
    """Yield the path of every class that `written` names."""
    if isinstance(written, dict):
        if written.get("type") == "constructor" and "lc" in written:
            yield tuple(written["id"])
        for value in written.values():
            yield from _constructors(value)
    elif isinstance(written, list):
        for value in written:
            yield from _constructors(value)


def _handler(recording: Recording) -> Any:
    from langchain_core.callbacks import BaseCallbackHandler

    class Recorder(BaseCallbackHandler):
        """Callback handler that notes each run."""

        def on_retriever_start(self, serialized: Any, query: str, *, run_id: Any, **kwargs: Any) -> None:
            recording.runs[run_id] = Run(str(kwargs.get("name")))

        def on_retriever_end(self, documents: Any, *, run_id: Any, **kwargs: Any) -> None:
            _end(recording.runs[run_id], documents)

        def on_retriever_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
            _end(recording.runs[run_id], None)

        def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: Any, **kwargs: Any) -> None:
            recording.runs[run_id] = Run(str(kwargs.get("name")))

        def on_chain_end(self, outputs: Any, *, run_id: Any, **kwargs: Any) -> None:
            documents = next(iter(outputs.values())) if isinstance(outputs, dict) and len(outputs) == 1 else outputs
            _end(recording.runs[run_id], documents)

        def on_chain_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
            _end(recording.runs[run_id], None)

    return Recorder()


def _end(run: Run, documents: Any) -> None:
    run.ends += 1
    run.failed = documents is None
    if isinstance(documents, list | tuple):
        run.ids = [getattr(document, "id", None) for document in documents]
