"""Document compressors: rerank by ColBERT, by a cross-encoder, or by several one after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, cast

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from pydantic import Field, PrivateAttr
from typing_extensions import Unpack

from rerank_integrations.core.checks import require_bool
from rerank_integrations.core.explanations import Explanation
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import CrossEncoderModel
from rerank_integrations.core.reranking import (
    Candidate,
    Cascade,
    Ranked,
    Reranker,
)
from rerank_integrations.core.reranking.calibration import CalibrationLike, calibration_spec
from rerank_integrations.core.reranking.components import (
    COLBERT,
    CROSS_ENCODER,
    CachedReranker,
    RerankerKind,
    load_model_and_index,
    named_cascade,
    require_known_arguments,
    require_stages,
)
from rerank_integrations.core.reranking.explain import explain_beside
from rerank_integrations.core.reranking.options import (
    CACHE_BYTES,
    ColBERTRerankArguments,
    ColBERTScale,
    RerankArguments,
)
from rerank_integrations.core.reranking.specs import (
    ColBERTLike,
    CrossEncoderLike,
    IndexLike,
    index_spec,
    load_cross_encoder,
    model_name,
    model_spec,
    on_device,
)
from rerank_integrations.core.types import ListwiseScorer, Scorer, TokenEncoder
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.langchain._compressor import CHECKED_BEFORE, Compressor, overrides
from rerank_integrations.langchain._convert import PairScorer, TextFn, candidates, require_documents, text_reader


class _Reranker(Compressor):
    """The base of both rerankers, which differ in their scorer alone."""

    model: Annotated[TokenEncoder | Scorer | ListwiseScorer, CHECKED_BEFORE] = Field(frozen=True)
    top_n: int | None = 3
    score_threshold: float | None = None
    window: int | None = None
    stride: int | None = None
    strict: bool = False
    max_candidates: int | None = None
    calibration: Annotated[CalibrationLike | None, CHECKED_BEFORE] = None
    text_fn: Annotated[TextFn | None, CHECKED_BEFORE] = None

    _kind: ClassVar[RerankerKind] = CROSS_ENCODER
    _cached: CachedReranker = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        require_known_arguments(type(self).__name__, fields, type(self).model_fields)
        text_reader(cast("TextFn | None", fields["text_fn"]))
        # Before pydantic sees the values, which would convert some of a wrong kind.
        cached = CachedReranker(self._kind, fields)
        require_bool(fields.get("scores_in_metadata", True), "scores_in_metadata")
        super().__init__(**fields)
        self._cached = cached

    @property
    def lc_attributes(self) -> dict[str, object]:
        """Specifications that ``dumpd`` writes in place of the loaded objects."""
        return {"model": model_spec(self.model), "calibration": calibration_spec(self.calibration)}

    def score(self, query: str, texts: list[str]) -> list[float]:
        """Return one score per text, in their order, as reranking gives them; higher is better."""
        return self._reranker().score(query, texts)

    def _model_name(self) -> str:
        return model_name(self.model)

    def _rank_many(self, queries: list[str], documents: list[list[Document]]) -> list[list[Ranked]]:
        return self._reranker().rank_many(queries, [candidates(of_query, self.text_fn) for of_query in documents])

    async def _acompress(self, documents: Sequence[Iterable[Document]], queries: list[str]) -> list[list[Document]]:
        reranker = self._reranker()
        if reranker.needs_thread or overrides(self, _Reranker, "_rank_many"):
            return await super()._acompress(documents, queries)
        checked = [require_documents(of_query) for of_query in documents]
        texts = [candidates(of_query, self.text_fn) for of_query in checked]
        return self._ranked_documents(checked, await reranker.arank_many(queries, texts))

    def _reranker(self) -> Reranker:
        # Fields may have been set since the last call.
        cached = self._cached = self._cached.matching(dict(self))
        return cached.reranker


class ColBERTRerank(_Reranker):
    """Rerank documents by ColBERT: MaxSim, summed over the query's tokens.

    Parameters
    ----------
    model
        A name, a path, a mapping of `ColBERTModel`'s arguments, or a loaded model; by default the index's.
    index
        An open index or a path. A document that it stores under the same id with the same text is scored from its
        stored vectors, so that only the query and the other documents are encoded.
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
        Only the first so many documents are scored, the others omitted; ``None`` scores all.
    calibration
        From `fit_calibration`, of the same scorer, or what its ``to_dict`` returns: scores and `score_threshold` are
        probabilities then.
    text_fn
        What is scored of a document: a function of it, or a template such as ``"{title}: {page_content}"`` over its
        metadata; by default ``page_content``, which is also what an index encodes. Only a template can be saved.
    cache_bytes
        How many bytes of vectors of documents that the index does not store are cached for the next calls.
    device
        The torch device, for a model given by name.
    scores_in_metadata
        Whether score, rank and note go into the metadata of the documents, which are `RankedDocument`s then. If not,
        the metadata stays as it came.

    Raises
    ------
    InvalidInputError
        If neither a model nor an index is given, or an argument is of a wrong kind.
    """

    model: Annotated[TokenEncoder, CHECKED_BEFORE] = Field(frozen=True)
    index: ColBERTIndex | None = Field(default=None, frozen=True)
    scale: ColBERTScale = "sum"
    cache_bytes: int = CACHE_BYTES

    _kind: ClassVar[RerankerKind] = COLBERT

    def __init__(
        self,
        *,
        model: ColBERTLike | None = None,
        index: IndexLike | None = None,
        top_n: int | None = 3,
        text_fn: TextFn | None = None,
        device: str | None = None,
        **options: Unpack[ColBERTRerankArguments],
    ) -> None:
        loaded, opened = load_model_and_index(model, index, device)
        super().__init__(model=loaded, index=opened, top_n=top_n, text_fn=text_fn, **options)

    @property
    def lc_attributes(self) -> dict[str, object]:
        """Specifications that ``dumpd`` writes in place of the loaded objects."""
        return {**super().lc_attributes, "index": index_spec(self.index)}

    def explain(self, query: str, document: Document) -> Explanation:
        """Explain which words of a document's scored text the query matched, as `rerank_integrations.explain` does."""
        return explain_beside(query, candidates([document], self.text_fn)[0].text, self.model, self.index)


class CrossEncoderRerank(_Reranker):
    """Rerank documents by a cross-encoder, which reads the query and a document together.

    Parameters
    ----------
    model
        A name, a path, a mapping of `CrossEncoderModel`'s arguments, a loaded model, a cross-encoder of LangChain's
        kind, a `RemoteReranker` or a mapping of its arguments, a `ListwiseScorer`, or anything with
        ``score(query, texts)``. A model's ``activation`` is the scale of the scores.
    top_n
        How many documents to keep; ``None`` keeps all.
    score_threshold
        Keep only documents of at least this score (inclusive), on the scale of the model's ``activation``.
    window, stride, strict, max_candidates, calibration, text_fn, device, scores_in_metadata
        As for `ColBERTRerank`; a `window` is in tokens of the document, and needs a `CrossEncoderModel`.
    """

    def __init__(
        self,
        *,
        model: CrossEncoderLike | BaseCrossEncoder,
        top_n: int | None = 3,
        text_fn: TextFn | None = None,
        device: str | None = None,
        **options: Unpack[RerankArguments],
    ) -> None:
        if isinstance(model, BaseCrossEncoder) and not isinstance(model, CrossEncoderModel):
            model = PairScorer(model)
        loaded = load_cross_encoder(on_device(model, device))
        super().__init__(model=loaded, top_n=top_n, text_fn=text_fn, **options)


class CascadeRerank(Compressor):
    """Rerankers one after another: a cheap one orders many documents, an expensive one only the best.

    Parameters
    ----------
    stages
        `ColBERTRerank`s and `CrossEncoderRerank`s; the ``top_n`` of each is what the next one gets.
    top_n
        How many documents to keep in the end; ``None`` keeps what the last stage keeps.
    time_budget
        Seconds per query; ``None`` for no limit. When it runs out, or when a stage fails, the cascade returns the order
        of the stage before it (before the first: the order given), and each document says so under ``rerank_stopped``.
    scores_in_metadata
        As for `ColBERTRerank`; that of the stages does not count.
    """

    stages: list[Annotated[_Reranker, CHECKED_BEFORE]]
    time_budget: float | None = None

    def __init__(
        self,
        *,
        stages: Iterable[_Reranker],
        top_n: int | None = None,
        time_budget: float | None = None,
        scores_in_metadata: bool = True,
    ) -> None:
        components = require_stages(stages, _Reranker, "ColBERTRerank or CrossEncoderRerank")
        for component in components:
            _require_own_ranking(component)
        # Before pydantic sees the values, which would convert some of a wrong kind.
        _cascade(components, top_n, time_budget)
        super().__init__(  # type: ignore[call-arg]
            stages=components,
            top_n=top_n,
            time_budget=time_budget,
            scores_in_metadata=require_bool(scores_in_metadata, "scores_in_metadata"),
        )

    def _model_name(self) -> str:
        return " > ".join(stage._model_name() for stage in self.stages)

    def _rank_many(self, queries: list[str], documents: list[list[Document]]) -> list[list[Ranked]]:
        cascade = _cascade(self.stages, self.top_n, self.time_budget)
        return [
            cascade.rank_stages(query, self._candidates(of_query))
            for query, of_query in zip(queries, documents, strict=True)
        ]

    async def _acompress(self, documents: Sequence[Iterable[Document]], queries: list[str]) -> list[list[Document]]:
        cascade = _cascade(self.stages, self.top_n, self.time_budget)
        if cascade.needs_thread or overrides(self, CascadeRerank, "_rank_many"):
            return await super()._acompress(documents, queries)
        checked = [require_documents(of_query) for of_query in documents]
        ranked = [
            await cascade.arank_stages(query, self._candidates(of_query))
            for query, of_query in zip(queries, checked, strict=True)
        ]
        return self._ranked_documents(checked, ranked)

    def _candidates(self, documents: Sequence[Document]) -> list[list[Candidate]]:
        """Return the documents as each stage reads them."""
        return [candidates(documents, stage.text_fn) for stage in self.stages]


def _require_own_ranking(stage: _Reranker) -> None:
    """Raise an `InvalidInputError` if the stage's class ranks in a way of its own, which a cascade would pass over."""
    for name in ("compress_documents", "compress_many", "_rank_many"):
        if overrides(stage, _Reranker, name):
            raise InvalidInputError(
                f"a stage is of the class {type(stage).__name__}, which overrides {name}; a cascade uses the scorers "
                "of its stages, so call the stages one after another instead"
            )


def _cascade(components: Sequence[_Reranker], top_n: int | None, time_budget: float | None) -> Cascade:
    named = [(type(component).__name__, component._reranker()) for component in components]
    return named_cascade(named, top_n, time_budget)
