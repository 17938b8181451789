"""The answers of the tools: structured for programs, and the same as text for a language model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field, JsonValue

from rerank_integrations.core.reranking import Ranked
from rerank_integrations.server.schemas import (
    DeleteResponse,
    PassagesResponse,
    PutResponse,
    SearchResponse,
    cut_warnings,
)

_SHOWN_CHARACTERS = 100


class RankedDocument(BaseModel):
    """A document's place in a ranking."""

    position: int = Field(description="Its position among the documents of the call, from 0.")
    score: float = Field(description="Higher is better, on the scale that `score_scale` names.")


class RerankAnswer(BaseModel):
    """Ranking of documents, best first."""

    model: str
    score_scale: str | None = None
    ranking: list[RankedDocument]
    warnings: list[str] | None = None


def rerank_answer(model: str, ranked: Sequence[Ranked], top_n: int | None) -> RerankAnswer:
    """Return the best `top_n` of a ranking."""
    return RerankAnswer(
        model=model,
        score_scale=ranked[0].note.get("score_scale") if ranked else None,
        ranking=[RankedDocument(position=item.place, score=item.score) for item in ranked[:top_n]],
        warnings=cut_warnings(ranked),
    )


def rerank_text(answer: RerankAnswer, documents: Sequence[str]) -> str:
    """Return a ranking as text, with the beginning of each document."""
    lines = [f"The best {len(answer.ranking)} of {len(documents)} documents, by {answer.model}:"]
    lines += [
        f"{rank}. document {item.position} (score {item.score:.4g}): {_beginning(documents[item.position])}"
        for rank, item in enumerate(answer.ranking, start=1)
    ]
    return "\n".join(lines + [f"Warning: {warning}" for warning in answer.warnings or []])


def search_text(answer: SearchResponse) -> str:
    """Return hits as text."""
    if not answer.hits:
        return f"No passage of {answer.index} was found."
    reranked = "" if answer.reranker is None else f", ordered by {answer.reranker}"
    passages = [_passage(hit.id, hit.text, hit.metadata, f"score {hit.score:.4g}, ") for hit in answer.hits]
    return "\n\n".join([f"{_count(len(passages))} of {answer.index}, best first{reranked}:", *_numbered(passages)])


def get_text(answer: PassagesResponse) -> str:
    """Return stored passages as text."""
    if not answer.passages:
        return f"No such passage is stored in {answer.index}."
    passages = [_passage(item.id, item.text, item.metadata) for item in answer.passages]
    return "\n\n".join([f"{_count(len(passages))} of {answer.index}:", *_numbered(passages)])


def add_text(answer: PutResponse) -> str:
    """Return what was stored as text."""
    # Of passages with one id the last is stored.
    ids = [key if key.isprintable() else json.dumps(key, ensure_ascii=False) for key in dict.fromkeys(answer.ids)]
    return f"Stored {_count(len(ids))} in {answer.index}: {', '.join(ids)}"


def delete_text(answer: DeleteResponse) -> str:
    """Return what was removed as text."""
    return f"Removed {_count(answer.deleted)} from {answer.index}."


def _passage(passage_id: str, text: str, metadata: Mapping[str, JsonValue], score: str = "") -> str:
    known = f", metadata {json.dumps(metadata, ensure_ascii=False)}" if metadata else ""
    return f"({score}id {json.dumps(passage_id, ensure_ascii=False)}{known})\n{text}"


def _numbered(passages: Sequence[str]) -> list[str]:
    return [f"{number}. {passage}" for number, passage in enumerate(passages, start=1)]


def _count(number: int) -> str:
    return "1 passage" if number == 1 else f"{number} passages"


def _beginning(text: str) -> str:
    line = " ".join(text[: 2 * _SHOWN_CHARACTERS].split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS].rstrip() + "…"
