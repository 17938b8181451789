"""The base of every compressor of this package: traces, threads and new documents around its ranking."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from types import EllipsisType
from typing import ClassVar, TypeAlias

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.load.serializable import Serializable
from langchain_core.runnables.config import ensure_config
from pydantic import ConfigDict, GetPydanticSchema
from pydantic_core.core_schema import any_schema
from typing_extensions import Self

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.ranking import require_cut
from rerank_integrations.core.reranking import Ranked
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.langchain._convert import as_list, ranked_document, require_documents
from rerank_integrations.langchain._spans import under_run

Report: TypeAlias = Callable[[list[Document]], None]

# A field's mark: its value was checked before pydantic sees it, and the type is for readers and editors alone.
CHECKED_BEFORE = GetPydanticSchema(lambda _source, _handler: any_schema())


@contextmanager
def traced(name: str, model: str, inputs: dict[str, object], callbacks: Callbacks | None) -> Iterator[Report]:
    """Open a run, and close it with the documents that are reported or with the error."""
    manager = CallbackManager.configure(_inherited(callbacks), inheritable_metadata=_ls_params(model))
    run = manager.on_chain_start(None, inputs, name=name)
    outputs: list[Document] = []
    try:
        with under_run(run.run_id):
            yield outputs.extend
    except BaseException as error:
        run.on_chain_error(error)
        raise
    run.on_chain_end({"documents": outputs})


@asynccontextmanager
async def atraced(
    name: str, model: str, inputs: dict[str, object], callbacks: Callbacks | None
) -> AsyncIterator[Report]:
    """Do as `traced`, and await asynchronous handlers."""
    manager = AsyncCallbackManager.configure(_inherited(callbacks), inheritable_metadata=_ls_params(model))
    run = await manager.on_chain_start(None, inputs, name=name)
    outputs: list[Document] = []
    try:
        with under_run(run.run_id):
            yield outputs.extend
    except BaseException as error:
        await run.on_chain_error(error)
        raise
    await run.on_chain_end({"documents": outputs})


def _inherited(callbacks: Callbacks | None) -> Callbacks | None:
    # Without callbacks of its own, a call inside a runnable still belongs under that runnable's run.
    return ensure_config().get("callbacks") if callbacks is None else callbacks


def _ls_params(model: str) -> dict[str, object]:
    return {"ls_provider": "rerank_integrations", "ls_model_name": model}


class Compressor(Serializable, BaseDocumentCompressor):
    """A document compressor that ranks; subclasses define how."""

    model_config: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)

    top_n: int | None = None
    scores_in_metadata: bool = True

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: ``dumpd`` writes the model's arguments, never its weights."""
        return True

    def compress_documents(
        self,
        documents: Iterable[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        top_n: int | EllipsisType | None = ...,
    ) -> list[Document]:
        """Return new documents, best first; `documents` are not changed.

        Parameters
        ----------
        top_n
            How many to keep, for this call alone; ``None`` keeps all. By default the component's own `top_n`.

        Raises
        ------
        InvalidInputError
            For an empty query, a bad `top_n`, or anything among the documents that is not one.
        """
        return self.with_top_n(top_n).compress_many([documents], [query], [callbacks])[0]

    async def acompress_documents(
        self,
        documents: Iterable[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        top_n: int | EllipsisType | None = ...,
    ) -> list[Document]:
        """Do as `compress_documents`, and run the model off the event loop."""
        listed, compressor = as_list(documents), self.with_top_n(top_n)
        if overrides(compressor, Compressor, "compress_documents", "compress_many"):
            # A subclass that defines the synchronous method alone means both.
            return list(await run_blocking(compressor.compress_documents, listed, query, callbacks))
        async with atraced(type(self).__name__, self._model_name(), _inputs(query, listed), callbacks) as report:
            ranked = (await compressor._acompress([listed], [query]))[0]
            report(ranked)
        return ranked

    def compress_many(
        self,
        documents: Sequence[Iterable[Document]],
        queries: Sequence[str],
        callbacks: Sequence[Callbacks | None] | None = None,
        *,
        top_n: int | EllipsisType | None = ...,
    ) -> list[list[Document]]:
        """Do as `compress_documents` for several queries, each with documents of its own; batches mix all of them.

        Raises
        ------
        InvalidInputError
            For an empty query, anything among the documents that is not one, or not one list of documents per query.
        """
        if not queries and not documents:
            return []
        query_callbacks = [None] * len(queries) if callbacks is None else callbacks
        if not len(documents) == len(queries) == len(query_callbacks):
            raise InvalidInputError(
                f"{len(documents)} lists of documents and {len(query_callbacks)} callbacks for {len(queries)} queries; "
                "expected one each"
            )
        listed = [as_list(of_query) for of_query in documents]
        with ExitStack() as runs:
            reports = [
                runs.enter_context(traced(type(self).__name__, self._model_name(), _inputs(query, of_query), parent))
                for query, of_query, parent in zip(queries, listed, query_callbacks, strict=True)
            ]
            ranked = self.with_top_n(top_n)._compress(listed, list(queries))
            for report, of_query in zip(reports, ranked, strict=True):
                report(of_query)
        return ranked

    def _compress(self, documents: Sequence[Iterable[Document]], queries: list[str]) -> list[list[Document]]:
        checked = [require_documents(of_query) for of_query in documents]
        return self._ranked_documents(checked, self._rank_many(queries, checked))

    async def _acompress(self, documents: Sequence[Iterable[Document]], queries: list[str]) -> list[list[Document]]:
        """Do as `_compress` on a thread; a subclass whose work waits for something else needs none."""
        return await run_blocking(self._compress, documents, queries)

    def _ranked_documents(
        self, documents: Sequence[Sequence[Document]], ranked: Sequence[Sequence[Ranked]]
    ) -> list[list[Document]]:
        return [
            [
                ranked_document(of_query[best.place], best, rank, scores_in_metadata=self.scores_in_metadata)
                for rank, best in enumerate(of_ranked, start=1)
            ]
            for of_query, of_ranked in zip(documents, ranked, strict=True)
        ]

    def with_top_n(self, top_n: int | EllipsisType | None) -> Self:
        """Return this component, or a copy with another `top_n`, which shares its model and its cached vectors."""
        if isinstance(top_n, EllipsisType):
            return self
        return self.model_copy(update={"top_n": require_cut(top_n, None)[0]})

    def _model_name(self) -> str:
        """Return the name of the model for traces."""
        raise NotImplementedError

    def _rank_many(self, queries: list[str], documents: list[list[Document]]) -> list[list[Ranked]]:
        """Return, for each query, which of its documents are kept, best first."""
        raise NotImplementedError


def overrides(component: object, base: type, *methods: str) -> bool:
    """Return whether the class of `component` has another definition of one of these methods than `base`."""
    return any(getattr(type(component), name, None) is not getattr(base, name) for name in methods)


def _inputs(query: str, documents: Iterable[Document]) -> dict[str, object]:
    return {"query": query, "documents": documents}
