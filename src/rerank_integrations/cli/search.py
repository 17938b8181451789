"""``rerank-integrations search`` and ``rerank``: the best passages of an index, or of a file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank_integrations.cli.output import write_hits, write_json
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.jsonl import passage_of_line
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel
from rerank_integrations.core.reranking import rerank as rerank_passages
from rerank_integrations.core.types import Hit, Passage
from rerank_integrations.errors import InvalidInputError

_STDIN = Path("-")
# As which Python hands on what it cannot decode of an argument; models and indexes take none.
_SURROGATES = re.compile("[\ud800-\udfff]")

AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]


def as_unicode(text: str | None) -> str | None:
    """Return an argument with a replacement character for each byte that the terminal's encoding lacks."""
    return None if text is None else _SURROGATES.sub("\ufffd", text)


Query = Annotated[str, typer.Argument(help="The question.", callback=as_unicode)]


class Kind(str, Enum):
    """The two kinds of reranking model."""

    colbert = "colbert"
    cross_encoder = "cross-encoder"


def search(
    path: Annotated[Path, typer.Argument(metavar="INDEX", help="The index.")],
    query: Query,
    k: Annotated[int, typer.Option("-k", "--k", min=0, help="How many hits.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="""A filter on metadata, in JSON: '{"year": {"$gte": 2023}}'.""")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search an index."""
    condition = None if where is None else _condition(where)
    with ColBERTIndex.open(path, read_only=True) as index:
        hits = index.search(query, k, where=condition)
    _write({"index": str(path)}, query, hits, as_json=as_json)


def rerank(
    query: Query,
    file: Annotated[
        Path,
        typer.Argument(help="Passages, one a line or JSONL; - is the standard input."),
    ] = _STDIN,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint name or path, or 'starter'. \\[default: a usual one of its kind]")
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What the model is.")] = Kind.colbert,
    top_n: Annotated[int | None, typer.Option(min=0, help="How many to keep. \\[default: all]")] = None,
    as_json: AsJson = False,
) -> None:
    """Put passages in order, the best first."""
    if file != _STDIN and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    passages = list(_read(file))
    maker = ColBERTModel if kind is Kind.colbert else CrossEncoderModel
    scorer = maker() if model is None else maker(model)
    hits = rerank_passages(query, passages, scorer, top_n=top_n)
    _write({"model": scorer.name}, query, hits, as_json=as_json)


def _condition(where: str) -> dict[str, Any]:
    try:
        condition = json.loads(where)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"--where is {where!r}; expected a JSON object ({error})") from error
    if not isinstance(condition, dict):
        raise InvalidInputError(f"--where is {where!r}; expected a JSON object")
    return condition


def _read(file: Path) -> Iterator[Passage]:
    """Yield the passages of a file: JSONL if its first line starts an object, else one a line, numbered."""
    name = "standard input" if file == _STDIN else str(file)
    data = sys.stdin.buffer.read() if file == _STDIN else file.read_bytes()
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name}: not UTF-8 ({error.reason}); expected UTF-8") from error
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    as_jsonl = bool(filled) and filled[0][1].lstrip().startswith("{")
    for number, line in filled:
        if as_jsonl:
            yield passage_of_line(line, place=f"{name}, line {number}")
        else:
            yield Passage(str(number), line.strip())


def _write(what: dict[str, str], query: str, hits: list[Hit], *, as_json: bool) -> None:
    if as_json:
        write_json({**what, "query": query, "hits": [hit.to_dict() for hit in hits]})
    else:
        write_hits(hits)
