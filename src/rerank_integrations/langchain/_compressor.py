"""What every compressor of this package does around its ranking: traces, threads, new documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.load.serializable import Serializable
from langchain_core.runnables.config import ensure_config
from pydantic import ConfigDict, GetPydanticSchema
from pydantic_core.core_schema import any_schema

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.reranking import Ranked
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.langchain._convert import document_list, kept, ranked_document

Report: TypeAlias = Callable[[list[Document]], None]

# A field's mark: its value was checked before pydantic sees it, and the type is for readers and editors alone.
CHECKED_BEFORE = GetPydanticSchema(lambda _source, _handler: any_schema())


@contextmanager
def traced(name: str, model: str, inputs: dict[str, Any], callbacks: Callbacks | None) -> Iterator[Report]:
    """Open a run; close it with the documents that are reported, or with the error."""
    manager = CallbackManager.configure(_inherited(callbacks), inheritable_metadata=_ls_params(model))
    run = manager.on_chain_start(None, inputs, name=name)
    outputs: list[Document] = []
    try:
        yield outputs.extend
    except BaseException as error:
        run.on_chain_error(error)
        raise
    run.on_chain_end({"documents": outputs})


@asynccontextmanager
async def atraced(name: str, model: str, inputs: dict[str, Any], callbacks: Callbacks | None) -> AsyncIterator[Report]:
    """Do as `traced`, with asynchronous handlers awaited."""
    manager = AsyncCallbackManager.configure(_inherited(callbacks), inheritable_metadata=_ls_params(model))
    run = await manager.on_chain_start(None, inputs, name=name)
    outputs: list[Document] = []
    try:
        yield outputs.extend
    except BaseException as error:
        await run.on_chain_error(error)
        raise
    await run.on_chain_end({"documents": outputs})


def _inherited(callbacks: Callbacks | None) -> Callbacks | None:
    # Called inside a runnable without callbacks, the run still belongs under that runnable's.
    return ensure_config().get("callbacks") if callbacks is None else callbacks


def _ls_params(model: str) -> dict[str, Any]:
    return {"ls_provider": "rerank_integrations", "ls_model_name": model}


class Compressor(Serializable, BaseDocumentCompressor):
    """A document compressor that ranks; subclasses say how."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: ``dumpd`` writes the model's arguments, never its weights."""
        return True

    def compress_documents(
        self, documents: Iterable[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return new documents, best first; those given are not changed.

        Raises
        ------
        InvalidInputError
            For an empty query, or what is no document.
        """
        return self.compress_many([documents], [query], [callbacks])[0]

    async def acompress_documents(
        self, documents: Iterable[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do as `compress_documents`, with the model's work off the event loop."""
        given = kept(documents)
        async with atraced(type(self).__name__, self._named(), _inputs(query, given), callbacks) as report:
            ranked = (await run_blocking(self._compress, [given], [query]))[0]
            report(ranked)
        return ranked

    def compress_many(
        self,
        documents: Sequence[Iterable[Document]],
        queries: Sequence[str],
        callbacks: Sequence[Callbacks | None] | None = None,
    ) -> list[list[Document]]:
        """Do as `compress_documents` for several queries with documents of their own, in batches of all of them.

        Raises
        ------
        InvalidInputError
            For an empty query, what is no document, or not one list of documents a query.
        """
        if not queries and not documents:
            return []
        above = [None] * len(queries) if callbacks is None else callbacks
        if not len(documents) == len(queries) == len(above):
            raise InvalidInputError(
                f"{len(documents)} lists of documents and {len(above)} callbacks for {len(queries)} queries; "
                "expected one each"
            )
        given = [kept(each) for each in documents]
        with ExitStack() as runs:
            reports = [
                runs.enter_context(traced(type(self).__name__, self._named(), _inputs(query, each), called))
                for query, each, called in zip(queries, given, above, strict=True)
            ]
            ranked = self._compress(given, list(queries))
            for report, each in zip(reports, ranked, strict=True):
                report(each)
        return ranked

    def _compress(self, documents: list[Any], queries: list[str]) -> list[list[Document]]:
        given = [document_list(each) for each in documents]
        return [
            [ranked_document(each[one.place], one, rank) for rank, one in enumerate(ranked, start=1)]
            for each, ranked in zip(given, self._rank_many(queries, given), strict=True)
        ]

    def _named(self) -> str:
        """Return the name of the model for traces."""
        raise NotImplementedError

    def _rank_many(self, queries: list[str], documents: list[list[Document]]) -> list[list[Ranked]]:
        """Return, for each query, which of its documents are kept, best first."""
        raise NotImplementedError


def _inputs(query: str, documents: Any) -> dict[str, Any]:
    return {"query": query, "documents": documents}
