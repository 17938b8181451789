"""Bodies of requests and answers, as the OpenAPI document shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue

from rerank_integrations.core.reranking import Ranked
from rerank_integrations.core.types import Hit, Passage

_TEXT = "Solar panels make electricity from light."
_PASSAGE: dict[str, JsonValue] = {"id": "solar", "text": _TEXT, "metadata": {"year": 2024}}
_QUERY = "How do solar panels work?"

Model = Annotated[str | None, Field(description="Name of a model of the service; the default one if absent.")]
Index = Annotated[str | None, Field(description="Name of an index of the service; it may be absent if there is one.")]
Query = Annotated[str, Field(description="The question; it must contain more than white space.", examples=[_QUERY])]
Filter = Annotated[
    dict[str, JsonValue] | None,
    Field(description="Filter on metadata, applied before anything is scored.", examples=[{"year": {"$gte": 2023}}]),
]


class Request(BaseModel):
    """Body of a request: a field that is not known is an error, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class RerankDocument(Request):
    """A document to rerank, with the id under which the model's index may store it."""

    text: str
    id: str | None = Field(default=None, description="With an index as the model: score the stored vectors.")


class RerankRequest(Request):
    """Body of a reranking request, as clients of Cohere and Jina send it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": _QUERY, "documents": [_TEXT, "The river rose after the rain."], "top_n": 1}]
        }
    )

    model: Model = None
    query: Query
    documents: Annotated[list[str | RerankDocument], FailFast()] = Field(
        description="The texts to rank; an object has its text under `text`."
    )
    top_n: int | None = Field(default=None, ge=1, description="How many results to return; all if absent.")
    return_documents: bool | None = Field(
        default=None, description="Whether results contain their documents; by default they do at /v1, not at /v2."
    )
    max_tokens_per_doc: None = Field(
        default=None, description="Only null: a model reads what it can, and `note` reports what it cut."
    )


class RerankResult(BaseModel):
    """A document's place in the ranking."""

    index: int = Field(description="Its position in the request, from 0.")
    relevance_score: float = Field(description="Higher is better, on the scale that `score_scale` names.")
    document: dict[str, JsonValue] | None = None
    note: dict[str, JsonValue] | None = Field(
        default=None, description="How the score came about, if not as usual: cut texts, stored vectors, windows."
    )


class ApiVersion(BaseModel):
    """Version of the interface."""

    version: str


class RerankMeta(BaseModel):
    """Fields beside the results that Cohere's clients read."""

    api_version: ApiVersion
    warnings: list[str] | None = None


class RerankResponse(BaseModel):
    """Ranking of the documents, best first."""

    id: str = Field(description="The id of the request.")
    model: str
    score_scale: str | None = Field(default=None, description="`maxsim_sum`, `logit`, `probability` and others.")
    results: list[RerankResult]
    meta: RerankMeta


class SearchRequest(Request):
    """A search in an index, and a reranking of its hits if `reranker` names a model."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": _QUERY, "k": 3, "where": {"year": {"$gte": 2023}}}]}
    )

    index: Index = None
    query: Query
    k: int = Field(default=10, ge=0, description="How many hits to return, or to rerank.")
    where: Filter = None
    ids: list[str] | None = Field(default=None, description="Search only these passages.")
    exact: bool = Field(default=False, description="Score every passage of a compressed index.")
    n_probe: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Centroids per query token of a compressed index."
    )
    n_candidates: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Candidates that a compressed index keeps."
    )
    search_type: Literal["colbert", "bm25", "hybrid"] = Field(
        default="colbert", description="Rank by token vectors, by the query's words, or by both."
    )
    bm25_weight: float | None = Field(
        default=None, ge=0, le=1, description="BM25's share of a hybrid score; by default the index's own."
    )
    reranker: str | None = Field(default=None, description="Name of a model of the service that reranks the hits.")
    top_n: int | None = Field(default=None, ge=1, description="How many reranked hits to return; all if absent.")


class HitBody(BaseModel):
    """A passage of the answer to a search."""

    id: str
    score: float
    rank: int
    text: str
    metadata: dict[str, JsonValue]
    note: dict[str, JsonValue] | None = None


class SearchResponse(BaseModel):
    """Hits, best first."""

    index: str
    reranker: str | None = None
    hits: list[HitBody]


class CompareRequest(Request):
    """A query for all generations of search: bi-encoder, cross-encoder over candidates, ColBERT."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": _QUERY, "k": 3, "candidates": 20}]})

    index: Index = None
    query: Query
    k: int = Field(default=10, ge=1, description="How many hits of each generation to return.")
    candidates: int | None = Field(
        default=None,
        ge=1,
        description="How many passages the cross-encoder reads, 50 if absent; ranks are known as deep as this.",
    )
    where: Filter = None
    reranker: str | None = Field(default=None, description="Name of the cross-encoder; the first one if absent.")


class ComparedHit(BaseModel):
    """A passage of a generation's ranking; its text is in `passages`."""

    id: str
    score: float
    rank: int
    ranks: dict[str, int | None] = Field(
        description="Its rank in each generation that has a ranking; null if it is not among the best `depth`."
    )


class StageBody(BaseModel):
    """A stage of a generation."""

    name: Literal["retrieve", "rerank"]
    ms: float = Field(description="Milliseconds, the wait in the service's queues included.")
    passages: int = Field(description="How many passages it returned or scored.")


class ProgressBody(BaseModel):
    """How far the bi-encoder is with the passages of an index."""

    state: Literal["preparing", "ready", "too_large", "failed"]
    encoded: int
    passages: int


class GenerationBody(BaseModel):
    """The result of a generation."""

    generation: Literal["bi-encoder", "cross-encoder", "colbert"]
    model: str | None = None
    reason: str | None = Field(default=None, description="Why there are no hits; absent where the generation ranked.")
    progress: ProgressBody | None = None
    candidates_from: str | None = Field(
        default=None, description="The generation that found the candidates of the cross-encoder."
    )
    score_scale: str | None = None
    stages: list[StageBody]
    ms: float = Field(description="The sum of its stages.")
    warnings: list[str]
    hits: list[ComparedHit]


class ComparedPassage(BaseModel):
    """Text and metadata of a passage."""

    text: str
    metadata: dict[str, JsonValue]


class CompareResponse(BaseModel):
    """The three generations side by side."""

    index: str
    depth: int = Field(description="How many passages each generation ranked at most.")
    generations: list[GenerationBody]
    passages: dict[str, ComparedPassage] = Field(description="The passages of all hits, by id.")


class FileResponse(BaseModel):
    """What was stored of a file; it is stored for good when this arrives."""

    index: str
    name: str
    passages: int
    removed: int = Field(description="Passages of an earlier file of this name that were removed.")


class ComparedIndex(BaseModel):
    """An index, and how far the bi-encoder is with it."""

    name: str
    passages: int
    model: str
    progress: ProgressBody | None = None


class ServiceResponse(BaseModel):
    """What a client needs to know before it asks: indexes, models and limits."""

    version: str
    status: Literal["loading", "ready", "draining", "failed"]
    indexes: list[ComparedIndex]
    bi_encoder: str | None
    rerankers: list[str] = Field(description="The cross-encoders that /v1/compare takes, the default first.")
    writable: bool
    files: list[str] = Field(description="Suffixes of the files that /v1/files reads.")
    max_k: int
    max_texts: int
    max_body_bytes: int


class PassageBody(Request):
    """A passage; without an id it gets one made from its text."""

    text: str
    id: str | None = Field(default=None, min_length=1)
    metadata: dict[str, JsonValue] | None = None


class PutRequest(Request):
    """Passages to store; one replaces the stored passage of the same id."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"passages": [_PASSAGE]}]})

    index: Index = None
    passages: Annotated[list[PassageBody], FailFast()]


class PutResponse(BaseModel):
    """The id of each passage, in the order of the request; they are stored for good when this arrives."""

    index: str
    ids: list[str]


class DeleteResponse(BaseModel):
    """The number of passages that were removed."""

    index: str
    deleted: int


class StoredPassage(BaseModel):
    """A passage as the index stores it."""

    id: str
    text: str
    metadata: dict[str, JsonValue]


class PassagesResponse(BaseModel):
    """Stored passages: by ids in their order, by a filter in the order in which they were added."""

    index: str
    passages: list[StoredPassage]


class EmbeddingsRequest(Request):
    """Texts to encode as one vector per token, as Jina's clients send them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": [_QUERY], "input_type": "query"}]})

    model: Model = None
    input: str | list[str]
    input_type: Literal["query", "document"] = "document"
    embedding_type: Literal["float", "base64"] = Field(
        default="float", description="`base64`: little-endian float32, row by row, of the `shape` beside it."
    )


class EmbeddingsItem(BaseModel):
    """The token vectors of a text."""

    object: Literal["embeddings"] = "embeddings"
    index: int
    shape: tuple[int, int] = Field(description="Tokens and dimensions.")
    embeddings: list[list[float]] | str


class EmbeddingsResponse(BaseModel):
    """The token vectors of each text, in the order of the request."""

    model: str
    object: Literal["list"] = "list"
    data: list[EmbeddingsItem]


class ExplainRequest(Request):
    """A text, or a stored passage by its id, whose ColBERT score is explained."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": _QUERY, "text": _TEXT}, {"query": _QUERY, "id": "solar"}]}
    )

    model: Model = None
    index: Index = None
    query: Query
    text: str | None = None
    id: str | None = None


class ExplainResponse(BaseModel):
    """Which words of the text the words of the query matched, and what each adds to the score."""

    model_config = ConfigDict(extra="allow")

    query: str
    text: str
    model: str
    score: float
    explained: float
    query_read_to: int | None = None
    read_to: int | None = None
    words: list[dict[str, Any]]
    matches: list[dict[str, Any]]


class IndexInfo(BaseModel):
    """An index of the service."""

    name: str
    passages: int


class IndexesResponse(BaseModel):
    """The indexes of the service."""

    indexes: list[IndexInfo]
    writable: bool


class ModelInfo(BaseModel):
    """A model of the service."""

    id: str
    object: Literal["model"] = "model"
    encodes: bool = Field(description="Whether /v1/embeddings and /v1/explain take it.")


class ModelsResponse(BaseModel):
    """The models of the service; the first one is the default of /v1/rerank."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class StatusResponse(BaseModel):
    """Whether the service is up, or wants requests."""

    status: Literal["ok", "loading", "ready", "draining", "failed"]


class ErrorResponse(BaseModel):
    """Body of every error. `message` and `detail` are the same: the names that Cohere's and Jina's clients read."""

    code: str = Field(description="A name for programs.", examples=["unknown_index"])
    message: str
    detail: str
    request_id: str


def hit_body(hit: Hit) -> HitBody:
    """Return a hit as the answer to a search contains it."""
    note: dict[str, Any] = dict(hit.note)
    return HitBody(
        id=hit.id, score=hit.score, rank=hit.rank, text=hit.text, metadata=dict(hit.metadata), note=note or None
    )


def stored_passage(passage: Passage) -> StoredPassage:
    """Return a passage as an answer contains it."""
    return StoredPassage(id=passage.id, text=passage.text, metadata=dict(passage.metadata))


def cut_warnings(ranked: Sequence[Ranked]) -> list[str] | None:
    """Return a sentence about documents, and one about the query, that the model did not read to the end."""
    cut = sum(bool(item.note.get("truncated")) for item in ranked)
    warnings = [f"{cut} of {len(ranked)} documents were longer than the model reads, and cut"] if cut else []
    if ranked and ranked[0].note.get("query_truncated"):
        warnings.append("the query was longer than the model reads, and cut")
    return warnings or None
