"""``rerank-integrations explain``: which words of a text a query matched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rerank_integrations.cli.output import show, tell, write_json
from rerank_integrations.cli.search import Query, as_unicode
from rerank_integrations.core.explanations import Explanation
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel, TokenEncoder
from rerank_integrations.core.reranking.explain import explain as explain_passage
from rerank_integrations.errors import InvalidInputError

_STDIN = Path("-")


def explain(
    query: Query,
    text: Annotated[
        str | None, typer.Argument(help="The text; or else --file, or --index and --id.", callback=as_unicode)
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file that holds the text; - is the standard input.")] = None,
    index: Annotated[Path | None, typer.Option(help="An index that holds the text as a passage.")] = None,
    passage_id: Annotated[str | None, typer.Option("--id", help="The passage's id in the index.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint name or path, or 'starter'. \\[default: the index's own, or colbertv2.0]"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a heat map to this file, an HTML page.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the checkpoint brings.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
) -> None:
    """Show which words of a text a query matched, and what each adds to its ColBERT score."""
    _require_one_text(text, file, index, passage_id)
    if html is not None:
        _require_apart(html, file, index)
    if index is not None:
        told = _of_index(query, index, str(passage_id), model, trust_remote_code=trust_remote_code)
    else:
        told = explain_passage(query, _read(file) if file else str(text), _model(model, trust_remote_code))
    if html is not None:
        html.write_text(told.to_html(), "utf-8")
        # What is on the standard output with --json is for programs.
        (tell if as_json else show)(f"The heat map is in {html}")
    if as_json:
        write_json(told.to_dict())
    elif html is None:
        show(told.render())


def _require_one_text(text: str | None, file: Path | None, index: Path | None, passage_id: str | None) -> None:
    if sum(given is not None for given in (text, file, index)) != 1:
        raise typer.BadParameter("expected one of TEXT, --file, and --index with --id", param_hint="TEXT")
    if (index is None) != (passage_id is None):
        raise typer.BadParameter("--index and --id go together", param_hint="--id")
    if file is not None and file != _STDIN and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="--file")


def _require_apart(html: Path, file: Path | None, index: Path | None) -> None:
    """Raise `InvalidInputError` where the page would take the place of what is explained."""
    target = html.resolve()
    if file is not None and file != _STDIN and (target == file.resolve() or (html.exists() and html.samefile(file))):
        raise InvalidInputError(f"--html is {html}, the file with the text; expected another file")
    if index is not None and target.is_relative_to(index.resolve()):
        raise InvalidInputError(f"--html is {html}, within the index; expected a file elsewhere")


def _model(name: str | None, trust_remote_code: bool) -> ColBERTModel:
    if name is None:
        return ColBERTModel(trust_remote_code=trust_remote_code)
    return ColBERTModel(name, trust_remote_code=trust_remote_code)


def _of_index(query: str, path: Path, passage_id: str, name: str | None, *, trust_remote_code: bool) -> Explanation:
    given = None if name is None else _model(name, trust_remote_code)
    with ColBERTIndex.open(path, given, read_only=True) as index:
        passages = index.get([passage_id])
        model = index.model
    if not passages:
        raise InvalidInputError(f"{path} holds no passage with the id {passage_id!r}")
    return explain_passage(query, passages[0], _trusted(model) if trust_remote_code else model)


def _trusted(model: TokenEncoder) -> ColBERTModel:
    # An index records no trust: it may come from anyone.
    return ColBERTModel(**{**model.options(), "trust_remote_code": True})


def _read(file: Path) -> str:
    data = sys.stdin.buffer.read() if file == _STDIN else file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file}: not UTF-8 ({error.reason}); expected UTF-8") from error
