"""Routes: a request's body becomes a call of `Service`, and its result the body of the answer."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.reranking import Candidate, Ranked
from rerank_integrations.core.types import to_passage
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.server import schemas
from rerank_integrations.server.answering import wait_for_answer
from rerank_integrations.server.bodies import ModelRoute
from rerank_integrations.server.metrics import Metrics
from rerank_integrations.server.service import Search, Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(_service)]
# Only for the OpenAPI document: the middleware checks the token before the body is read.
BEARER = Security(HTTPBearer(auto_error=False, description="Needed if the service was started with a token."))


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route for the OpenAPI document: those that every route may answer, and `statuses`."""
    return {status: {"model": schemas.ErrorResponse} for status in sorted({400, 401, 422, 429, 503, 504, *statuses})}


api = APIRouter(dependencies=[BEARER], route_class=ModelRoute)
operation = APIRouter(dependencies=[BEARER])
probes = APIRouter(tags=["operation"])


@api.post("/v1/rerank", tags=["rerank"], responses=error_responses(404, 408, 413), response_model_exclude_none=True)
async def rerank(body: schemas.RerankRequest, request: Request, service: ServiceDependency) -> schemas.RerankResponse:
    """Rank documents by their relevance to a query: what the clients of Cohere (version 1) and Jina send and read."""
    return await _rerank(body, request, service, "1", body.return_documents is not False)


@api.post("/v2/rerank", tags=["rerank"], responses=error_responses(404, 408, 413), response_model_exclude_none=True)
async def rerank_v2(
    body: schemas.RerankRequest, request: Request, service: ServiceDependency
) -> schemas.RerankResponse:
    """Do the same for clients of version 2 of Cohere's interface, whose results contain no documents."""
    return await _rerank(body, request, service, "2", body.return_documents is True)


async def _rerank(
    body: schemas.RerankRequest, request: Request, service: Service, version: str, with_documents: bool
) -> schemas.RerankResponse:
    candidates = [
        Candidate(None, item) if isinstance(item, str) else Candidate(item.id, item.text) for item in body.documents
    ]
    ranked = await wait_for_answer(
        request, service.rerank(body.query, candidates, body.model), service.settings.timeout
    )
    scale = ranked[0].note.get("score_scale") if ranked else None
    results = [_result(item, candidates[item.place], with_documents) for item in ranked[: body.top_n]]
    meta = schemas.RerankMeta(api_version=schemas.ApiVersion(version=version), warnings=schemas.cut_warnings(ranked))
    return schemas.RerankResponse(
        id=request.state.request_id,
        model=body.model or service.models[0],
        score_scale=scale,
        results=results,
        meta=meta,
    )


def _result(ranked: Ranked, candidate: Candidate, with_document: bool) -> schemas.RerankResult:
    note: dict[str, Any] = {key: value for key, value in ranked.note.items() if key not in _USUAL_NOTES}
    document: dict[str, Any] = {"text": candidate.text}
    if candidate.id is not None:
        document["id"] = candidate.id
    return schemas.RerankResult(
        index=ranked.place,
        relevance_score=ranked.score,
        document=document if with_document else None,
        note=note or None,
    )


_USUAL_NOTES = frozenset({"retrieval_rank", "retrieval_score", "score_scale"})


@api.post("/v1/search", tags=["search"], responses=error_responses(404, 408, 413), response_model_exclude_none=True)
async def search(body: schemas.SearchRequest, request: Request, service: ServiceDependency) -> schemas.SearchResponse:
    """Search an index, and rerank the hits if `reranker` names a model."""
    wanted = Search(**{field.name: getattr(body, field.name) for field in dataclasses.fields(Search)})
    work = service.search_and_rerank(wanted, body.reranker, body.top_n, body.index)
    hits = await wait_for_answer(request, work, service.settings.timeout)
    return schemas.SearchResponse(
        index=service.index_name(body.index), reranker=body.reranker, hits=[schemas.hit_body(hit) for hit in hits]
    )


@api.put("/v1/passages", tags=["passages"], responses=error_responses(403, 404, 408, 413, 507))
async def put_passages(body: schemas.PutRequest, request: Request, service: ServiceDependency) -> schemas.PutResponse:
    """Store passages, or replace those of the same id. If one of them cannot be stored, none is."""
    passages = [to_passage(item.model_dump()) for item in body.passages]
    ids = await wait_for_answer(request, service.upsert(passages, body.index), service.settings.write_timeout)
    return schemas.PutResponse(index=service.index_name(body.index), ids=ids)


IndexParameter = Annotated[str | None, Query(description="Name of an index; it may be absent if there is one.")]
IdsParameter = Annotated[list[str] | None, Query(description="Id of a passage; repeat it for several.")]
WhereParameter = Annotated[
    str | None,
    Query(description="Filter on metadata, as a JSON object; `{}` is every passage.", examples=['{"year": 2024}']),
]


@api.get("/v1/passages", tags=["passages"], responses=error_responses(404))
async def get_passages(
    request: Request,
    service: ServiceDependency,
    index: IndexParameter = None,
    id: IdsParameter = None,
    where: WhereParameter = None,
    limit: Annotated[int | None, Query(ge=0, description="How many passages to return at most, with `where`.")] = None,
    offset: Annotated[int, Query(ge=0, le=2**63 - 1, description="How many to skip before them, with `where`.")] = 0,
) -> schemas.PassagesResponse:
    """Return stored passages by ids or by a filter; unknown ids are omitted."""
    work = service.get(index, ids=id, where=_where(where), limit=limit, offset=offset)
    passages = await wait_for_answer(request, work, service.settings.timeout)
    return schemas.PassagesResponse(
        index=service.index_name(index), passages=[schemas.stored_passage(passage) for passage in passages]
    )


@api.delete("/v1/passages", tags=["passages"], responses=error_responses(403, 404, 507))
async def delete_passages(
    request: Request,
    service: ServiceDependency,
    index: IndexParameter = None,
    id: IdsParameter = None,
    where: WhereParameter = None,
) -> schemas.DeleteResponse:
    """Remove passages by ids or by a filter, in one commit; unknown ids are ignored."""
    work = service.delete(index, ids=id, where=_where(where))
    deleted = await wait_for_answer(request, work, service.settings.write_timeout)
    return schemas.DeleteResponse(index=service.index_name(index), deleted=deleted)


def _where(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        where = json.loads(text)
    except (ValueError, RecursionError):
        where = None
    if not isinstance(where, dict):
        raise InvalidInputError(f"where is {text[:100]!r}; expected a JSON object")
    return where


@api.post(
    "/v1/embeddings",
    tags=["models"],
    response_class=Response,
    responses={**error_responses(404, 408, 413), 200: {"model": schemas.EmbeddingsResponse}},
)
@api.post(
    "/v1/multi-vector",
    tags=["models"],
    response_class=Response,
    responses={**error_responses(404, 408, 413), 200: {"model": schemas.EmbeddingsResponse}},
)
async def embeddings(body: schemas.EmbeddingsRequest, request: Request, service: ServiceDependency) -> Response:
    """Encode texts as one vector per token, for MaxSim elsewhere."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    work = service.encode(texts, body.input_type, body.model)
    vectors = await wait_for_answer(request, work, service.settings.timeout)
    model = body.model or service.encoders[0]
    chunks = _embeddings_json(model, vectors, as_base64=body.embedding_type == "base64")
    return StreamingResponse(chunks, media_type="application/json")


async def _embeddings_json(model: str, vectors: Sequence[Floats], *, as_base64: bool) -> AsyncIterator[bytes]:
    """Yield an `EmbeddingsResponse` text by text, so that neither the event loop nor memory has to take it whole."""
    yield b'{"model":' + orjson.dumps(model) + b',"object":"list","data":['
    for number, array in enumerate(vectors):
        yield (b"," if number else b"") + await run_blocking(_embeddings_item, number, array, as_base64)
    yield b"]}"


def _embeddings_item(number: int, array: Floats, as_base64: bool) -> bytes:
    data: object = base64.b64encode(array.astype("<f4").tobytes()).decode() if as_base64 else array
    item = {"object": "embeddings", "index": number, "shape": array.shape, "embeddings": data}
    return orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY)


@api.post("/v1/explain", tags=["models"], responses=error_responses(404, 408, 413))
async def explain(
    body: schemas.ExplainRequest, request: Request, service: ServiceDependency
) -> schemas.ExplainResponse:
    """Explain a ColBERT score: which words of a text, or of a stored passage, the words of the query matched."""
    if (body.text is None) == (body.id is None):
        raise InvalidInputError("text and id are both absent or both given; expected one of them")
    explanation = await wait_for_answer(request, _explain(body, service), service.settings.timeout)
    return schemas.ExplainResponse(**explanation)


async def _explain(body: schemas.ExplainRequest, service: Service) -> dict[str, Any]:
    if body.id is None:
        return await service.explain(body.query, str(body.text), body.model)
    name = service.index_name(body.index)
    passage = await service.passage(body.id, name)
    return await service.explain(body.query, passage.text, body.model or name)


@api.get("/v1/indexes", tags=["search"], responses=error_responses())
async def indexes(request: Request, service: ServiceDependency) -> schemas.IndexesResponse:
    """List the indexes of the service."""
    counts = await wait_for_answer(request, service.counts(), service.settings.timeout)
    infos = [schemas.IndexInfo(name=name, passages=count) for name, count in counts.items()]
    return schemas.IndexesResponse(indexes=infos, writable=service.settings.writable)


@api.get("/v1/models", tags=["models"], responses=error_responses())
async def models(service: ServiceDependency) -> schemas.ModelsResponse:
    """List the models of the service, the default of /v1/rerank first."""
    encoders = set(service.encoders)
    return schemas.ModelsResponse(
        data=[schemas.ModelInfo(id=name, encodes=name in encoders) for name in service.models]
    )


@operation.get(
    "/metrics", tags=["operation"], response_class=Response, responses={401: {"model": schemas.ErrorResponse}}
)
async def metrics(request: Request) -> Response:
    """Return metrics in Prometheus' format."""
    collected: Metrics = request.app.state.metrics
    return Response(await run_blocking(collected.exposition), media_type=collected.content_type)


@probes.get("/health")
async def health() -> schemas.StatusResponse:
    """Say that the service answers; it may still be loading models."""
    return schemas.StatusResponse(status="ok")


@probes.get("/ready", responses={503: {"model": schemas.StatusResponse}})
async def ready(service: ServiceDependency) -> JSONResponse:
    """Say whether the service wants requests: not while it loads models or stops."""
    return JSONResponse({"status": service.status}, 200 if service.status == "ready" else 503)
