"""Document compressors: rerank by ColBERT or by a cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.load.serializable import Serializable
from pydantic import ConfigDict

from rerank_integrations.core.aio import run_blocking
from rerank_integrations.core.explain import explain
from rerank_integrations.core.explanations import Explanation
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.rerank import require_cut, rerank_order
from rerank_integrations.core.specs import (
    ColBERTLike,
    CrossEncoderLike,
    IndexLike,
    index_spec,
    load_cross_encoder,
    model_name,
    model_spec,
)
from rerank_integrations.core.stored import candidate_scorer, reranking_parts
from rerank_integrations.core.types import Scorer
from rerank_integrations.langchain._convert import scored
from rerank_integrations.langchain._tracing import atraced, traced


class _Reranker(Serializable, BaseDocumentCompressor):
    """What both rerankers share: they differ in their scorer alone."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Any
    top_n: int | None = 3
    score_threshold: float | None = None

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: ``dumpd`` writes the model's arguments, never its weights."""
        return True

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """What ``dumpd`` writes in place of the loaded objects."""
        return {"model": model_spec(self.model)}

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return new documents, best first; those given are not changed.

        Raises
        ------
        InvalidInputError
            For an empty query.
        """
        inputs = {"query": query, "documents": list(documents)}
        with traced(type(self).__name__, model_name(self.model), inputs, callbacks) as report:
            kept = self._rerank(documents, query)
            report(kept)
        return kept

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do as `compress_documents`, with the model's work off the event loop."""
        inputs = {"query": query, "documents": list(documents)}
        async with atraced(type(self).__name__, model_name(self.model), inputs, callbacks) as report:
            kept = await run_blocking(self._rerank, documents, query)
            report(kept)
        return kept

    def _rerank(self, documents: Sequence[Document], query: str) -> list[Document]:
        order = rerank_order(
            query,
            [document.page_content for document in documents],
            self._scorer(documents),
            top_n=self.top_n,
            threshold=self.score_threshold,
        )
        return [scored(documents[place], score, rank) for rank, (place, score) in enumerate(order, start=1)]

    def _scorer(self, documents: Sequence[Document]) -> Scorer:
        scorer: Scorer = self.model
        return scorer


class ColBERTRerank(_Reranker):
    """Rerank documents by ColBERT: MaxSim, summed over the query's tokens.

    Parameters
    ----------
    model
        A name, a path, a mapping of `ColBERTModel`'s arguments, or a loaded model; by default the index's.
    index
        An open index or a path. A document that it holds under the same id with the same text is scored from
        its stored vectors, so that only the query and the documents it does not hold are encoded.
    top_n
        How many documents to keep; ``None`` keeps all.
    score_threshold
        Keep only documents of at least this score (inclusive).

    Raises
    ------
    InvalidInputError
        If neither a model nor an index is given, or an argument is of a wrong kind.
    """

    index: ColBERTIndex | None = None

    def __init__(
        self,
        *,
        model: ColBERTLike | None = None,
        index: IndexLike | None = None,
        top_n: int | None = 3,
        score_threshold: float | None = None,
    ) -> None:
        require_cut(top_n, score_threshold)
        loaded, opened = reranking_parts(model, index)
        super().__init__(  # type: ignore[call-arg]
            model=loaded, index=opened, top_n=top_n, score_threshold=score_threshold
        )

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """What ``dumpd`` writes in place of the loaded objects."""
        return {"model": model_spec(self.model), "index": index_spec(self.index)}

    def _scorer(self, documents: Sequence[Document]) -> Scorer:
        return candidate_scorer(self.model, self.index, [document.id for document in documents])

    def explain(self, query: str, document: Document) -> Explanation:
        """Tell which words of a document the query matched, as `rerank_integrations.explain` does."""
        return explain(query, document.page_content, self.model)


class CrossEncoderRerank(_Reranker):
    """Rerank documents by a cross-encoder, which reads the query and a document together.

    Parameters
    ----------
    model
        A name, a path, a mapping of `CrossEncoderModel`'s arguments, a loaded model, or anything with
        ``score(query, texts)``.
    top_n
        How many documents to keep; ``None`` keeps all.
    score_threshold
        Keep only documents of at least this score (inclusive), on the scale of the model's ``activation``.
    """

    def __init__(self, *, model: CrossEncoderLike, top_n: int | None = 3, score_threshold: float | None = None) -> None:
        require_cut(top_n, score_threshold)
        super().__init__(model=load_cross_encoder(model), top_n=top_n, score_threshold=score_threshold)
