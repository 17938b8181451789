"""``rerank-integrations explain``: show the words of a text that a query matched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rerank_integrations.cli.options import STDIN, AsJson, Query, TrustRemoteCode, as_unicode, read_text
from rerank_integrations.cli.output import show, show_on_stderr, write_json
from rerank_integrations.core.explanations import Explanation
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel, TokenEncoder
from rerank_integrations.core.reranking.explain import explain as explain_passage
from rerank_integrations.core.reranking.explain import explain_beside
from rerank_integrations.errors import InvalidInputError


def explain(
    query: Query,
    text: Annotated[
        str | None, typer.Argument(help="The text. Instead give --file, or --index and --id.", callback=as_unicode)
    ] = None,
    file: Annotated[Path | None, typer.Option(help="File with the text; - reads the standard input.")] = None,
    index: Annotated[Path | None, typer.Option(help="Folder of an index that stores the text as a passage.")] = None,
    passage_id: Annotated[str | None, typer.Option("--id", help="Id of the passage in the index.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint name or path, or 'starter'. \\[default: the index's own, or colbertv2.0]"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a heat map of the text to this file, an HTML page.")] = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Show which words of a text a query matched, and what each adds to its ColBERT score."""
    _require_one_text(text, file, index, passage_id)
    if html is not None:
        _require_separate_page(html, file, index)
    if index is not None:
        explanation = _explain_stored(query, index, str(passage_id), model, trust_remote_code=trust_remote_code)
    else:
        explanation = explain_passage(query, read_text(file) if file else str(text), _model(model, trust_remote_code))
    if html is not None:
        html.write_text(explanation.to_html(), "utf-8")
        # With --json the standard output is for programs.
        (show_on_stderr if as_json else show)(f"The heat map is in {html}")
    if as_json:
        write_json(explanation.to_dict())
    elif html is None:
        show(explanation.render())


def _require_one_text(text: str | None, file: Path | None, index: Path | None, passage_id: str | None) -> None:
    if sum(source is not None for source in (text, file, index)) != 1:
        raise typer.BadParameter("expected one of TEXT, --file, and --index with --id", param_hint="TEXT")
    if (index is None) != (passage_id is None):
        raise typer.BadParameter("--index and --id go together", param_hint="--id")
    if file is not None and file != STDIN and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="--file")


def _require_separate_page(html: Path, file: Path | None, index: Path | None) -> None:
    """Raise `InvalidInputError` where the page would overwrite the text that it explains."""
    target = html.resolve()
    if file is not None and file != STDIN and (target == file.resolve() or (html.exists() and html.samefile(file))):
        raise InvalidInputError(f"--html is {html}, the file with the text; expected another file")
    if index is not None and target.is_relative_to(index.resolve()):
        raise InvalidInputError(f"--html is {html}, within the index; expected a file elsewhere")


def _model(name: str | None, trust_remote_code: bool) -> ColBERTModel:
    if name is None:
        return ColBERTModel(trust_remote_code=trust_remote_code)
    return ColBERTModel(name, trust_remote_code=trust_remote_code)


def _explain_stored(
    query: str, path: Path, passage_id: str, model_name: str | None, *, trust_remote_code: bool
) -> Explanation:
    requested = None if model_name is None else _model(model_name, trust_remote_code)
    with ColBERTIndex.open(path, requested, read_only=True) as index:
        passages = index.get([passage_id])
        if not passages:
            raise InvalidInputError(f"{path} holds no passage with the id {passage_id!r}")
        return explain_beside(query, passages[0], _trusted(index.model) if trust_remote_code else index.model, index)


def _trusted(model: TokenEncoder) -> ColBERTModel:
    # An index does not record this permission, because it may come from anyone.
    return ColBERTModel(**{**model.options(), "trust_remote_code": True})
