"""``rerank-integrations demo``: retrieval from the docstrings of the running Python, without a model hub."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text
from tqdm import tqdm

from rerank_integrations.cli.highlight import highlight
from rerank_integrations.cli.options import as_unicode
from rerank_integrations.cli.output import has_colours, show, write_hits
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.types import Passage
from rerank_integrations.demo.docstrings import standard_library_passages
from rerank_integrations.demo.frameworks import Answer, ask_all
from rerank_integrations.demo.library import build_library, open_library
from rerank_integrations.errors import RerankError


def demo(
    question: Annotated[
        str, typer.Argument(help="The question.", callback=as_unicode)
    ] = "read a zip file without extracting it",
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Number of hits to show.")] = 5,
) -> None:
    """Search the docstrings of this Python's standard library, through LangChain and through LlamaIndex.

    The first call builds an index of them, which takes a minute or two. Later calls use that index.
    """
    model = ColBERTModel("starter")
    with open_library(model) or _build(model) as index:
        start = time.perf_counter()
        index.search(question, 1)
        show(f"Loaded the model and the index in {time.perf_counter() - start:.1f} s.")
        answers, missing = ask_all(index, question, k)
        _show(model, question, answers)
    for error in missing:
        show(f"Skipped: {error}.")
    _compare(answers)


def _build(model: ColBERTModel) -> ColBERTIndex:
    start = time.perf_counter()
    passages = list(standard_library_passages())
    modules = len({passage.metadata["module"] for passage in passages})
    show(
        f"Python {platform.python_version()}: {len(passages):,} docstrings in {modules} modules of the standard "
        f"library, read in {time.perf_counter() - start:.1f} s."
    )
    start = time.perf_counter()
    index = build_library(model, passages, _progress)
    seconds = time.perf_counter() - start
    megabytes = index.stats().bytes / 1e6
    show(
        f"Encoded and indexed in {seconds:.1f} s ({len(passages) / seconds:.0f} per second), {megabytes:.1f} MB, "
        f"stored in {index.path}"
    )
    return index


def _progress(passages: list[Passage]) -> Iterable[Passage]:
    return tqdm(passages, desc="indexing", unit=" passages", disable=None)


def _show(model: ColBERTModel, question: str, answers: list[Answer]) -> None:
    styled = has_colours()
    hits = answers[0].hits
    texts: dict[str, Text] = {
        hit.id: highlight(hit.text, model.explain(question, hit.text), styled=styled) for hit in hits
    }
    write_hits(hits, texts, title=f"“{question}”")
    for answer in answers:
        show(f"Answered through {answer.framework} in {answer.seconds * 1000:.0f} ms.")


def _compare(answers: list[Answer]) -> None:
    if len(answers) < 2:
        return
    first, second = answers
    if [(hit.id, hit.score) for hit in first.hits] != [(hit.id, hit.score) for hit in second.hits]:
        raise RerankError(
            f"{first.framework} gave {[hit.id for hit in first.hits]} and {second.framework} gave "
            f"{[hit.id for hit in second.hits]}; expected the same ids and scores"
        )
    show(f"{first.framework} and {second.framework} gave the same {len(first.hits)} passages and scores.")
