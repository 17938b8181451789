"""Node postprocessors: rerank by ColBERT, by a cross-encoder, or by several one after another."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore
from typing_extensions import Unpack

from rerank_integrations.core.checks import require_bool
from rerank_integrations.core.explanations import Explanation
from rerank_integrations.core.index import ColBERTIndex
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
    require_tokenizer_of,
    with_arguments,
)
from rerank_integrations.core.types import ListwiseScorer, Scorer, TokenEncoder
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.llama_index._convert import MetadataModeLike, as_metadata_mode, candidates, read_text
from rerank_integrations.llama_index._postprocessor import CHECKED_BEFORE, CallOptions, Postprocessor


class _Reranker(Postprocessor):
    """The base of both rerankers, which differ in their scorer alone."""

    model: Annotated[TokenEncoder | Scorer | ListwiseScorer, CHECKED_BEFORE] = Field(
        frozen=True, description="The model that scores; written as its name or arguments."
    )
    score_threshold: float | None = Field(default=None, description="Keep only nodes of at least this score.")
    window: int | None = Field(default=None, description="Score longer texts by windows of so many tokens.")
    stride: int | None = Field(default=None, description="Tokens from one window to the next.")
    strict: bool = Field(default=False, description="Whether a text that would be cut is an error.")
    max_candidates: int | None = Field(default=None, description="How many nodes are scored; None scores all.")
    calibration: Annotated[CalibrationLike | None, CHECKED_BEFORE] = Field(
        default=None, description="From fit_calibration: scores are probabilities then."
    )
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.NONE, description="Which metadata is part of the scored text."
    )

    _kind: ClassVar[RerankerKind] = CROSS_ENCODER
    _cached: CachedReranker = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        require_known_arguments(type(self).__name__, fields, type(self).model_fields)
        mode = as_metadata_mode(fields["metadata_mode"])
        manager = fields["callback_manager"] or CallbackManager()
        # Before pydantic sees the values, which would convert some of a wrong kind.
        cached = CachedReranker(self._kind, fields)
        require_bool(fields.get("scores_in_metadata", True), "scores_in_metadata")
        super().__init__(**{**fields, "metadata_mode": mode, "callback_manager": manager})
        self._cached = cached

    @field_serializer("model")
    def _serialize_model(self, model: object) -> object:
        return model_spec(model)

    @field_serializer("calibration")
    def _serialize_calibration(self, calibration: CalibrationLike | None) -> dict[str, Any] | None:
        return calibration_spec(calibration)

    def score(self, query: str, texts: list[str]) -> list[float]:
        """Return one score per text, in their order, as reranking gives them; higher is better."""
        return self._reranker().score(query, texts)

    def _model_name(self) -> str:
        return model_name(self.model)

    def _rank(self, query: str, nodes: list[NodeWithScore], **options: Unpack[CallOptions]) -> list[Ranked]:
        return self._reranker(**options).rank(query, candidates(nodes, self.metadata_mode))

    def _needs_thread(self) -> bool:
        # Not by `_reranker`, which checks options that were set since: events report such an error.
        return self._cached.reranker.needs_thread

    async def _arank(self, query: str, nodes: list[NodeWithScore], **options: Unpack[CallOptions]) -> list[Ranked]:
        return (await self._reranker(**options).arank_many([query], [candidates(nodes, self.metadata_mode)]))[0]

    def _reranker(self, **options: Unpack[CallOptions]) -> Reranker:
        # Fields may have been set since the last call.
        cached = self._cached = self._cached.matching(dict(self))
        return cached.matching({**dict(self), **options}).reranker if options else cached.reranker


class ColBERTRerank(_Reranker):
    """Rerank nodes by ColBERT: MaxSim, summed over the query's tokens.

    Parameters
    ----------
    model
        A name, a path, a mapping of `ColBERTModel`'s arguments, or a loaded model; by default the index's.
    index
        An open index or a path. A node that it stores under the same id with the same text is scored from its stored
        vectors, so that only the query and the other nodes are encoded.
    top_n
        How many nodes to keep; ``None`` keeps all.
    keep_retrieval_score
        Whether the score before reranking goes into the metadata too, under ``retrieval_score``.
    metadata_mode
        Which metadata is part of the scored text; by default none, as in an index.
    callback_manager
        LlamaIndex's own.
    score_threshold
        Keep only nodes of at least this score (inclusive); `fit_threshold` finds one.
    window, stride
        In tokens. With a `window`, a longer text is scored by overlapping windows, and the best one counts: its
        character span comes back as ``window_start`` and ``window_end``. The `stride` is half a window by default.
    strict
        Whether a text that would be cut is a `TextTooLongError`; by default it is marked ``truncated``.
    scale
        ``"sum"``, or ``"mean"`` over the query's tokens, which compares across queries.
    max_candidates
        Only the first so many nodes are scored, the others omitted; ``None`` scores all.
    calibration
        From `fit_calibration`, of the same scorer, or what its ``to_dict`` returns: scores and `score_threshold` are
        probabilities then.
    cache_bytes
        How many bytes of vectors of nodes that the index does not store are cached for the next calls.
    device
        The torch device, for a model given by name.
    scores_in_metadata
        Whether the rank and the note of a node go into its metadata, hidden from every text that a model reads. If not,
        the metadata stays as it came.
    tokenizer
        As LlamaIndex's own ``ColbertRerank`` takes it; must be the model's own.

    Raises
    ------
    InvalidInputError
        If neither a model nor an index is given, or an argument is of a wrong kind.
    """

    model: Annotated[TokenEncoder, CHECKED_BEFORE] = Field(
        frozen=True, description="The model that scores; written as its name or arguments."
    )
    index: Annotated[ColBERTIndex | None, CHECKED_BEFORE] = Field(
        default=None, frozen=True, description="The index whose vectors are used; written as its path."
    )
    scale: ColBERTScale = Field(default="sum", description="MaxSim as a sum, or as a mean over the query's tokens.")
    cache_bytes: int = Field(default=CACHE_BYTES, description="Bytes of vectors kept of nodes not in the index.")

    _kind: ClassVar[RerankerKind] = COLBERT

    def __init__(
        self,
        model: ColBERTLike | None = None,
        index: IndexLike | None = None,
        top_n: int | None = 5,
        keep_retrieval_score: bool = False,
        metadata_mode: MetadataModeLike = MetadataMode.NONE,
        callback_manager: CallbackManager | None = None,
        *,
        device: str | None = None,
        tokenizer: str | None = None,
        **options: Unpack[ColBERTRerankArguments],
    ) -> None:
        loaded, opened = load_model_and_index(model, index, device)
        require_tokenizer_of(loaded, tokenizer)
        super().__init__(
            model=loaded,
            index=opened,
            top_n=top_n,
            keep_retrieval_score=keep_retrieval_score,
            metadata_mode=metadata_mode,
            callback_manager=callback_manager,
            **options,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises this class."""
        return "ColBERTRerank"

    @field_serializer("index")
    def _serialize_index(self, index: ColBERTIndex | None) -> str | None:
        return index_spec(index)

    def explain(self, query: str, node: NodeWithScore | BaseNode) -> Explanation:
        """Explain which words of a node's scored text the query matched, as `rerank_integrations.explain` does."""
        inner = node.node if isinstance(node, NodeWithScore) else node
        return explain_beside(query, read_text(inner, self.metadata_mode), self.model, self.index)


class CrossEncoderRerank(_Reranker):
    """Rerank nodes by a cross-encoder, which reads the query and a node together.

    Parameters
    ----------
    model
        A name, a path, a mapping of `CrossEncoderModel`'s arguments, a loaded model, a `RemoteReranker` or a mapping
        of its arguments, a `ListwiseScorer`, or anything with ``score(query, texts)``. A model's ``activation`` is the
        scale of the scores.
    top_n, keep_retrieval_score, metadata_mode, callback_manager
        As for `ColBERTRerank`.
    strict, max_candidates, calibration, device, scores_in_metadata
        As for `ColBERTRerank`.
    score_threshold
        Keep only nodes of at least this score (inclusive), on the scale of the model's ``activation``.
    window, stride
        As for `ColBERTRerank`, in tokens of the node's text; they need a `CrossEncoderModel`.
    cross_encoder_kwargs, trust_remote_code
        As LlamaIndex's own ``SentenceTransformerRerank`` takes them, for a model given by name: arguments of
        `CrossEncoderModel`.
    """

    def __init__(
        self,
        model: CrossEncoderLike,
        top_n: int | None = 5,
        keep_retrieval_score: bool = False,
        metadata_mode: MetadataModeLike = MetadataMode.NONE,
        callback_manager: CallbackManager | None = None,
        *,
        device: str | None = None,
        cross_encoder_kwargs: Mapping[str, object] | None = None,
        trust_remote_code: bool | None = None,
        **options: Unpack[RerankArguments],
    ) -> None:
        extra = dict(cross_encoder_kwargs or {})
        if trust_remote_code is not None:
            extra["trust_remote_code"] = trust_remote_code
        super().__init__(
            model=load_cross_encoder(with_arguments(on_device(model, device), extra)),
            top_n=top_n,
            keep_retrieval_score=keep_retrieval_score,
            metadata_mode=metadata_mode,
            callback_manager=callback_manager,
            **options,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises this class."""
        return "CrossEncoderRerank"


class CascadeRerank(Postprocessor):
    """Rerankers one after another: a cheap one orders many nodes, an expensive one only the best.

    Parameters
    ----------
    stages
        `ColBERTRerank`s and `CrossEncoderRerank`s; the ``top_n`` of each is what the next one gets.
    top_n
        How many nodes to keep in the end; ``None`` keeps what the last stage keeps.
    time_budget
        Seconds per query; ``None`` for no limit. When it runs out, or when a stage fails, the cascade returns the order
        of the stage before it (before the first: the order given), and each node says so under ``rerank_stopped``.
    keep_retrieval_score, callback_manager, scores_in_metadata
        As for `ColBERTRerank`; those of the stages do not count.
    """

    stages: list[Annotated[_Reranker, CHECKED_BEFORE]] = Field(description="The rerankers, in their order.")
    time_budget: float | None = Field(default=None, description="Seconds for one query.")

    def __init__(
        self,
        stages: Iterable[_Reranker | Mapping[str, object]],
        top_n: int | None = None,
        time_budget: float | None = None,
        keep_retrieval_score: bool = False,
        callback_manager: CallbackManager | None = None,
        scores_in_metadata: bool = True,
    ) -> None:
        components = require_stages(stages, _Reranker, "ColBERTRerank or CrossEncoderRerank", _component)
        for component in components:
            _require_own_ranking(component)
        # Before pydantic sees the values, which would convert some of a wrong kind.
        _cascade(components, top_n, time_budget)
        super().__init__(  # type: ignore[call-arg]
            stages=components,
            top_n=top_n,
            time_budget=time_budget,
            keep_retrieval_score=keep_retrieval_score,
            callback_manager=callback_manager or CallbackManager(),
            scores_in_metadata=require_bool(scores_in_metadata, "scores_in_metadata"),
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises this class."""
        return "CascadeRerank"

    @field_serializer("stages")
    def _serialize_stages(self, stages: list[_Reranker]) -> list[dict[str, Any]]:
        return [stage.to_dict() for stage in stages]

    def _model_name(self) -> str:
        return " > ".join(stage._model_name() for stage in self.stages)

    def _rank(self, query: str, nodes: list[NodeWithScore], **options: Unpack[CallOptions]) -> list[Ranked]:
        cascade = _cascade(self.stages, options.get("top_n", self.top_n), self.time_budget)
        return cascade.rank_stages(query, self._candidates(nodes))

    def _needs_thread(self) -> bool:
        return all(stage._needs_thread() for stage in self.stages)

    async def _arank(self, query: str, nodes: list[NodeWithScore], **options: Unpack[CallOptions]) -> list[Ranked]:
        cascade = _cascade(self.stages, options.get("top_n", self.top_n), self.time_budget)
        return await cascade.arank_stages(query, self._candidates(nodes))

    def _candidates(self, nodes: list[NodeWithScore]) -> list[list[Candidate]]:
        """Return the nodes as each stage reads them."""
        return [candidates(nodes, stage.metadata_mode) for stage in self.stages]


def _cascade(components: Sequence[_Reranker], top_n: int | None, time_budget: float | None) -> Cascade:
    named = [(type(component).__name__, component._reranker()) for component in components]
    return named_cascade(named, top_n, time_budget)


def _require_own_ranking(stage: _Reranker) -> None:
    """Raise an `InvalidInputError` if the stage's class ranks in a way of its own, which a cascade would pass over."""
    for name in ("postprocess_nodes", "_postprocess_nodes", "_rank"):
        if inspect.getattr_static(type(stage), name) is not inspect.getattr_static(_Reranker, name):
            raise InvalidInputError(
                f"a stage is of the class {type(stage).__name__}, which overrides {name}; a cascade uses the scorers "
                "of its stages, so call the stages one after another instead"
            )


def _component(stage: object) -> object:
    """Return the component that ``to_dict`` wrote, or `stage` itself."""
    if not isinstance(stage, Mapping):
        return stage
    kinds = {kind.class_name(): kind for kind in (ColBERTRerank, CrossEncoderRerank)}
    kind = kinds.get(stage.get("class_name", ""))
    return stage if kind is None else kind.from_dict(dict(stage))
