"""``rerank-integrations search`` and ``rerank``: find the best passages of an index, or order those of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rerank_integrations.cli.options import (
    STDIN,
    AsJson,
    IndexPath,
    ModelKind,
    Query,
    SearchKind,
    file_name,
    is_remote,
    load_reranker,
    read_text,
)
from rerank_integrations.cli.output import write_hits, write_json
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.jsonl import parse_passage
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel
from rerank_integrations.core.reranking import rerank as rerank_passages
from rerank_integrations.core.reranking.remote import RemoteReranker
from rerank_integrations.core.types import Hit, Passage
from rerank_integrations.errors import InvalidInputError


def search(
    path: IndexPath,
    query: Query,
    k: Annotated[int, typer.Option("-k", "--k", min=0, help="Number of hits to return.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="""Filter on metadata, as JSON: '{"year": {"$gte": 2023}}'.""")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint name or path. \\[default: the one that the index names on the hub]")
    ] = None,
    search_type: Annotated[
        SearchKind, typer.Option(help="Rank by token vectors, by the query's words (BM25), or by both.")
    ] = SearchKind.COLBERT,
    bm25_weight: Annotated[
        float | None, typer.Option(help="BM25's share of a hybrid score, 0 to 1. \\[default: the index's own]")
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Rerank the hits by a cross-encoder, also 'starter', or by a service: its address, or JSON of "
            "RemoteReranker's arguments.",
        ),
    ] = None,
    top_n: Annotated[
        int | None, typer.Option(min=0, help="Number of reranked hits to return. \\[default: all]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search an index."""
    if top_n is not None and reranker is None:
        raise InvalidInputError(f"--top-n is {top_n} without --reranker; expected -k alone, or both")
    scorer = None if reranker is None else load_reranker(reranker)
    condition = None if where is None else _condition(where)
    encoder = None if model is None else ColBERTModel(model)
    with ColBERTIndex.open(path, encoder, read_only=True) as index:
        hits = index.search(query, k, where=condition, search_type=search_type.value, bm25_weight=bm25_weight)
    origin = {"index": str(path)}
    if scorer is not None:
        hits = rerank_passages(query, hits, scorer, top_n=top_n)
        origin["reranker"] = scorer.name
    _write(origin, query, hits, as_json=as_json)


def rerank(
    query: Query,
    file: Annotated[
        Path,
        typer.Argument(help="File of passages, one per line or as JSONL; - reads the standard input."),
    ] = STDIN,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint name or path, or 'starter', or the address of a reranking service. "
            "\\[default: a usual one of its kind]"
        ),
    ] = None,
    kind: Annotated[ModelKind, typer.Option(help="Kind of the model.")] = ModelKind.COLBERT,
    top_n: Annotated[int | None, typer.Option(min=0, help="Number of passages to return. \\[default: all]")] = None,
    as_json: AsJson = False,
) -> None:
    """Order passages by their relevance to a question, the best first."""
    if file != STDIN and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    passages = list(_read_passages(file))
    scorer = _scorer(model, kind)
    hits = rerank_passages(query, passages, scorer, top_n=top_n)
    _write({"model": scorer.name}, query, hits, as_json=as_json)


def _scorer(model: str | None, kind: ModelKind) -> ColBERTModel | CrossEncoderModel | RemoteReranker:
    if model is not None and is_remote(model):
        return load_reranker(model)
    model_class = ColBERTModel if kind is ModelKind.COLBERT else CrossEncoderModel
    return model_class() if model is None else model_class(model)


def _condition(where: str) -> dict[str, object]:
    try:
        condition = json.loads(where)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"--where is {where!r}; expected a JSON object ({error})") from error
    if not isinstance(condition, dict):
        raise InvalidInputError(f"--where is {where!r}; expected a JSON object")
    return condition


def _read_passages(file: Path) -> Iterator[Passage]:
    """Yield the passages of a file: JSONL if its first line starts an object, else one per line, with its number."""
    lines = [(number, line) for number, line in enumerate(read_text(file).splitlines(), start=1) if line.strip()]
    as_jsonl = bool(lines) and lines[0][1].lstrip().startswith("{")
    for number, line in lines:
        if as_jsonl:
            yield parse_passage(line, location=f"{file_name(file)}, line {number}")
        else:
            yield Passage(str(number), line.strip())


def _write(origin: dict[str, str], query: str, hits: list[Hit], *, as_json: bool) -> None:
    if as_json:
        write_json({**origin, "query": query, "hits": [hit.to_dict() for hit in hits]})
    else:
        write_hits(hits)
