"""The training data of the starter models: questions, claims and headings with their passages, and hard negatives."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rerank_integrations.training import Example, mine_negatives

QUESTIONS = 16_000
# A cross-encoder that learns from a teacher gets as many queries of science as of everything else.
TAUGHT_QUESTIONS = 8_000
SENTENCES = 8
HEADINGS = {"debian_pkg_en": 6_000, "foldoc": 4_000}
# The few claims are repeated, with other negatives each time.
CLAIM_ROUNDS = 4
_MIN_PASSAGE_CHARACTERS = 60


def mixture(data: Path, negatives: int, seed: int, questions: int = QUESTIONS) -> dict[str, list[Example]]:
    """Return examples with `negatives` each, by source; the sizes are the shares."""
    draw = random.Random(seed)
    claims = read_claims(data)
    sources = {"squad": mine_negatives(read_questions(data, questions, draw), negatives, seed=seed)}
    sources["scifact"] = [
        example for number in range(CLAIM_ROUNDS) for example in mine_negatives(claims, negatives, seed=seed + number)
    ]
    sources["abstracts"] = mine_negatives(read_abstracts(claims), negatives, seed=seed)
    for name, count in HEADINGS.items():
        headings = read_headings(data / "scale" / f"{name}.corpus.jsonl.gz", count, draw)
        sources[name] = mine_negatives(headings, negatives, seed=seed)
    return sources


def taught_mixture(data: Path, negatives: int, seed: int) -> dict[str, list[Example]]:
    """Return `mixture` with fewer questions and with sentences as queries, for a teacher that rates each passage."""
    sources = mixture(data, negatives, seed, TAUGHT_QUESTIONS)
    sentences = _sentences(read_claims(data), random.Random(seed))
    return {**sources, "sentences": mine_negatives(sentences, negatives, seed=seed)}


def read_claims(data: Path) -> list[Example]:
    """Return SciFact's train claims, with the abstract that supports or refutes each."""
    return [Example(row["query"], row["positive"]) for row in read_rows(data / "train" / "scifact_train.jsonl.gz")]


def _sentences(claims: list[Example], draw: random.Random) -> list[Example]:
    """Return sentences of the claims' papers, with the rest of the abstract as positives."""
    examples = []
    for text in dict.fromkeys(claim.positive for claim in claims):
        sentences = [part for part in re.split(r"(?<=[.?!])\s+", text) if 40 < len(part) < 300]
        drawn = draw.sample(sentences, min(SENTENCES, len(sentences)))
        examples += [Example(sentence, text.replace(sentence, " ")) for sentence in drawn]
    return examples


def read_questions(data: Path, count: int, draw: random.Random) -> list[Example]:
    """Return questions of SQuAD, each with one paragraph of the same article as its first negative."""
    rows = list(read_rows(data / "train" / "squad_train.jsonl.gz"))
    articles: dict[str, list[str]] = {}
    for row in rows:
        articles.setdefault(row["title"], []).append(row["positive"])
    articles = {title: list(dict.fromkeys(paragraphs)) for title, paragraphs in articles.items()}
    examples = []
    for row in draw.sample(rows, count):
        others = [text for text in articles[row["title"]] if text != row["positive"]]
        examples.append(Example(row["query"], row["positive"], tuple(draw.sample(others, min(1, len(others))))))
    return examples


def read_abstracts(claims: list[Example]) -> list[Example]:
    """Return titles of the claims' papers, with the abstract as positives."""
    examples = {}
    for claim in claims:
        title, _, abstract = claim.positive.partition(". ")
        if 20 < len(title) < 200 < len(abstract):
            examples[title] = Example(title, abstract)
    return list(examples.values())


def read_headings(corpus: Path, count: int, draw: random.Random) -> list[Example]:
    """Return titles of passages, with the text as positives."""
    examples: dict[str, Example] = {}
    rows = list(read_rows(corpus))
    draw.shuffle(rows)
    for row in rows:
        title = row.get("title", "").strip()
        if title and len(row["text"]) > _MIN_PASSAGE_CHARACTERS:
            examples.setdefault(title.lower(), Example(title, row["text"]))
        if len(examples) == count:
            break
    return list(examples.values())


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a gzipped file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
