"""Passages for tests of an index: real sentences, with ties and texts without words among them."""

from __future__ import annotations

from corpus import SENTENCES

from rerank_integrations import Passage

QUERIES = ["read a zip file", "interest rates", "the same face to the earth", "zzz unknown words", "zip"]


def corpus() -> dict[str, str]:
    """Return sentences, three of them twice or more under other ids, and passages without words."""
    texts = [*SENTENCES, SENTENCES[2], SENTENCES[0], SENTENCES[0], "", "   \n", "...!"]
    return {f"p{number:03}": text for number, text in enumerate(texts)}


def as_passages(texts: dict[str, str]) -> list[Passage]:
    return [Passage(key, text, {"number": place}) for place, (key, text) in enumerate(texts.items())]
