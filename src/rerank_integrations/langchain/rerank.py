"""Document compressors: rerank by ColBERT, by a cross-encoder, or by several one after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from pydantic import Field, PrivateAttr

from rerank_integrations.core.explain import explain
from rerank_integrations.core.explanations import Explanation
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import CrossEncoderModel
from rerank_integrations.core.ranking import require_cut
from rerank_integrations.core.reranking import (
    Cascade,
    ColBERTScorer,
    Ranked,
    Reranker,
    as_candidate_scorer,
)
from rerank_integrations.core.reranking.cascade import numbered_stages
from rerank_integrations.core.reranking.colbert_scorer import CACHE_BYTES
from rerank_integrations.core.reranking.components import KeptScorer, reranker_of, reranking_parts, stage_list
from rerank_integrations.core.specs import (
    ColBERTLike,
    CrossEncoderLike,
    IndexLike,
    index_spec,
    load_cross_encoder,
    model_name,
    model_spec,
    on_device,
)
from rerank_integrations.langchain._compressor import Compressor
from rerank_integrations.langchain._convert import PairScorer, TextFn, candidates, text_reader


class _Reranker(Compressor):
    """What both rerankers share: they differ in their scorer alone."""

    model: Any = Field(frozen=True)
    top_n: int | None = 3
    score_threshold: float | None = None
    window: int | None = None
    stride: int | None = None
    strict: bool = False
    max_candidates: int | None = None
    text_fn: Any = None

    _kept: KeptScorer = PrivateAttr()

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """What ``dumpd`` writes in place of the loaded objects."""
        return {"model": model_spec(self.model)}

    def score(self, query: str, texts: list[str]) -> list[float]:
        """Return one score a text, in their order, as reranking gives them; higher is better."""
        return self._reranker().score(query, texts)

    def _named(self) -> str:
        return model_name(self.model)

    def _rank_many(self, queries: list[str], documents: list[list[Document]]) -> list[list[Ranked]]:
        return self._reranker().rank_many(queries, [candidates(each, self.text_fn) for each in documents])

    def _reranker(self) -> Reranker:
        # Options may have been set since.
        kept = self._kept = self._kept.of(self)
        return reranker_of(self, kept)


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
        Keep only documents of at least this score (inclusive); `fit_threshold` finds one.
    window, stride
        In tokens. With a `window`, a longer text is scored by overlapping windows, and the best one counts: its
        character span comes back as ``window_start`` and ``window_end``. The `stride` is half a window by default.
    strict
        Whether a text that would be cut is a `TextTooLongError`; by default it is marked ``truncated``.
    scale
        ``"sum"``, or ``"mean"`` over the query's tokens, which compares across queries.
    max_candidates
        Only the first so many documents are scored, the others left out; ``None`` scores all.
    text_fn
        What is scored of a document: a function of it, or a template such as ``"{title}: {page_content}"`` over its
        metadata; by default ``page_content``, which is also what an index encodes. Only a template can be saved.
    cache_bytes
        How much of the vectors of documents that the index does not hold is kept for the next calls.
    device
        The torch device, for a model given by name.

    Raises
    ------
    InvalidInputError
        If neither a model nor an index is given, or an argument is of a wrong kind.
    """

    index: ColBERTIndex | None = Field(default=None, frozen=True)
    scale: str = "sum"
    cache_bytes: int = CACHE_BYTES

    def __init__(
        self,
        *,
        model: ColBERTLike | None = None,
        index: IndexLike | None = None,
        top_n: int | None = 3,
        score_threshold: float | None = None,
        window: int | None = None,
        stride: int | None = None,
        strict: bool = False,
        scale: str = "sum",
        max_candidates: int | None = None,
        text_fn: TextFn | None = None,
        cache_bytes: int = CACHE_BYTES,
        device: str | None = None,
    ) -> None:
        text_reader(text_fn)
        loaded, opened = reranking_parts(on_device(model, device), index)
        parts = {"model": loaded, "index": opened}
        kept = KeptScorer(ColBERTScorer, parts, window=window, stride=stride, scale=scale, cache_bytes=cache_bytes)
        Reranker(kept.scorer, top_n=top_n, threshold=score_threshold, max_candidates=max_candidates, strict=strict)
        super().__init__(  # type: ignore[call-arg]
            model=loaded,
            index=opened,
            top_n=top_n,
            score_threshold=score_threshold,
            window=window,
            stride=stride,
            strict=strict,
            scale=scale,
            max_candidates=max_candidates,
            text_fn=text_fn,
            cache_bytes=cache_bytes,
        )
        self._kept = kept

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """What ``dumpd`` writes in place of the loaded objects."""
        return {"model": model_spec(self.model), "index": index_spec(self.index)}

    def explain(self, query: str, document: Document) -> Explanation:
        """Tell which words of a document's scored text the query matched, as `rerank_integrations.explain` does."""
        return explain(query, candidates([document], self.text_fn)[0].text, self.model)


class CrossEncoderRerank(_Reranker):
    """Rerank documents by a cross-encoder, which reads the query and a document together.

    Parameters
    ----------
    model
        A name, a path, a mapping of `CrossEncoderModel`'s arguments, a loaded model, a cross-encoder of LangChain's
        kind, or anything with ``score(query, texts)``. Its ``activation`` is the scale of the scores.
    top_n
        How many documents to keep; ``None`` keeps all.
    score_threshold
        Keep only documents of at least this score (inclusive), on the scale of the model's ``activation``.
    window, stride, strict, max_candidates, text_fn, device
        As for `ColBERTRerank`; a `window` is in tokens of the document, and needs a `CrossEncoderModel`.
    """

    def __init__(
        self,
        *,
        model: CrossEncoderLike,
        top_n: int | None = 3,
        score_threshold: float | None = None,
        window: int | None = None,
        stride: int | None = None,
        strict: bool = False,
        max_candidates: int | None = None,
        text_fn: TextFn | None = None,
        device: str | None = None,
    ) -> None:
        text_reader(text_fn)
        if isinstance(model, BaseCrossEncoder) and not isinstance(model, CrossEncoderModel):
            model = PairScorer(model)
        loaded = load_cross_encoder(on_device(model, device))
        kept = KeptScorer(as_candidate_scorer, {"model": loaded}, window=window, stride=stride)
        Reranker(kept.scorer, top_n=top_n, threshold=score_threshold, max_candidates=max_candidates, strict=strict)
        super().__init__(
            model=loaded,
            top_n=top_n,
            score_threshold=score_threshold,
            window=window,
            stride=stride,
            strict=strict,
            max_candidates=max_candidates,
            text_fn=text_fn,
        )
        self._kept = kept


class CascadeRerank(Compressor):
    """Rerankers one after another: what is cheap over many, what is dear over the best few.

    Parameters
    ----------
    stages
        `ColBERTRerank`s and `CrossEncoderRerank`s; the ``top_n`` of each is what the next one gets.
    top_n
        How many documents to keep in the end; ``None`` keeps what the last stage keeps.
    time_budget
        Seconds for one query; ``None`` for no limit. When it runs out, or when a stage fails, the order of the stage
        before it comes back (before the first: the order given), and each document says so under ``rerank_stopped``.
    """

    stages: list[Any]
    top_n: int | None = None
    time_budget: float | None = None

    def __init__(
        self, *, stages: Iterable[_Reranker], top_n: int | None = None, time_budget: float | None = None
    ) -> None:
        require_cut(top_n, None)
        given = stage_list(stages)
        Cascade(numbered_stages(given, _Reranker), top_n=top_n, time_budget=time_budget)
        super().__init__(stages=given, top_n=top_n, time_budget=time_budget)  # type: ignore[call-arg]

    def _named(self) -> str:
        return " > ".join(stage._named() for stage in self.stages)

    def _rank_many(self, queries: list[str], documents: list[list[Document]]) -> list[list[Ranked]]:
        cascade = Cascade(numbered_stages(self.stages, _Reranker), top_n=self.top_n, time_budget=self.time_budget)
        return [
            cascade.rank_stages(query, [candidates(given, stage.text_fn) for stage in self.stages])
            for query, given in zip(queries, documents, strict=True)
        ]
