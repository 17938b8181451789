"""Routes of the comparison of generations, and of what the page needs beside it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

import rerank_integrations
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.server import schemas
from rerank_integrations.server.answering import wait_for_answer
from rerank_integrations.server.bi_encoder import Progress
from rerank_integrations.server.bodies import ModelRoute
from rerank_integrations.server.comparing import Column, Comparer, Comparison, Generation
from rerank_integrations.server.routes import BEARER, IndexParameter, ServiceDependency, error_responses
from rerank_integrations.server.uploads import FileStore, accepted_suffixes

comparison = APIRouter(dependencies=[BEARER], route_class=ModelRoute)

_FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The contents of the file.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@comparison.post(
    "/v1/compare", tags=["search"], responses=error_responses(404, 408, 413), response_model_exclude_none=False
)
async def compare(
    body: schemas.CompareRequest, request: Request, service: ServiceDependency
) -> schemas.CompareResponse:
    """Search by bi-encoder, by a cross-encoder over candidates and by ColBERT, each timed by itself."""
    if body.k > service.settings.max_k:
        raise InvalidInputError(f"k is {body.k}; expected at most {service.settings.max_k}")
    comparer: Comparer = request.app.state.comparer
    work = comparer.compare(
        body.query,
        body.index,
        k=body.k,
        candidates=body.candidates,
        where=body.where,
        reranker=body.reranker,
    )
    compared = await wait_for_answer(request, work, service.settings.timeout)
    ranks = compared.ranks()
    generations = [_generation(column, body.k, ranks) for column in compared.columns]
    return schemas.CompareResponse(
        index=compared.index,
        depth=compared.depth,
        generations=generations,
        passages=_passages(compared, generations),
    )


def _generation(column: Column, k: int, ranks: dict[Generation, dict[str, int]]) -> schemas.GenerationBody:
    hits = [
        schemas.ComparedHit(id=key, score=score, rank=rank, ranks={name: of.get(key) for name, of in ranks.items()})
        for rank, (key, score) in enumerate(column.ranking[:k], start=1)
    ]
    stages = [schemas.StageBody(name=stage.name, ms=stage.ms, passages=stage.passages) for stage in column.stages]
    return schemas.GenerationBody(
        generation=column.generation,
        model=column.model,
        reason=column.reason,
        progress=_progress(column.progress),
        candidates_from=column.candidates_from,
        score_scale=column.score_scale,
        stages=stages,
        ms=sum(stage.ms for stage in stages),
        warnings=list(column.warnings),
        hits=hits,
    )


def _progress(progress: Progress | None) -> schemas.ProgressBody | None:
    if progress is None:
        return None
    return schemas.ProgressBody(state=progress.state, encoded=progress.encoded, passages=progress.passages)


def _passages(compared: Comparison, generations: list[schemas.GenerationBody]) -> dict[str, schemas.ComparedPassage]:
    ids = dict.fromkeys(hit.id for generation in generations for hit in generation.hits)
    passages = {key: compared.passages[key] for key in ids if key in compared.passages}
    return {
        key: schemas.ComparedPassage(text=passage.text, metadata=dict(passage.metadata))
        for key, passage in passages.items()
    }


NameParameter = Annotated[
    str, Query(max_length=200, description="The file's name; its suffix says how it is read.", examples=["notes.md"])
]


@comparison.put(
    "/v1/files",
    tags=["passages"],
    responses=error_responses(403, 404, 408, 413, 507),
    openapi_extra=_FILE_BODY,
)
async def put_file(
    request: Request, service: ServiceDependency, name: NameParameter, index: IndexParameter = None
) -> schemas.FileResponse:
    """Store the passages of a file, split as the command `index` does, in place of an earlier file of this name.

    PUT, because a browser sends it for no other site.
    """
    store: FileStore = request.app.state.files
    data = await request.body()
    stored = await wait_for_answer(request, store.put(name, data, index), service.settings.write_timeout)
    return schemas.FileResponse(index=stored.index, name=name, passages=stored.passages, removed=stored.removed)


@comparison.get("/v1/service", tags=["operation"], responses=error_responses())
async def describe(request: Request, service: ServiceDependency) -> schemas.ServiceResponse:
    """Return the names of indexes and models, and the limits of the service."""
    comparer: Comparer = request.app.state.comparer
    settings = service.settings
    counts = await wait_for_answer(request, service.counts(), settings.timeout)
    indexes = [
        schemas.ComparedIndex(
            name=name, passages=count, model=comparer.colbert_name(name), progress=_progress(comparer.progress(name))
        )
        for name, count in counts.items()
    ]
    return schemas.ServiceResponse(
        version=rerank_integrations.__version__,
        status=service.status,
        indexes=indexes,
        bi_encoder=None if comparer.bi_encoder is None else comparer.bi_encoder.name,
        rerankers=comparer.rerankers,
        writable=settings.writable,
        files=list(await run_blocking(accepted_suffixes)),
        max_k=settings.max_k,
        max_texts=settings.max_texts,
        max_body_bytes=settings.max_body_bytes,
    )
