"""Queries of the reranking benchmark and their candidates: BM25's best of real passages."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerank_integrations import Passage
from rerank_integrations.evaluation import load_dataset
from rerank_integrations.evaluation.bm25 import BM25

# Shares of the mixed candidates: half are abstracts of about 300 tokens, a quarter paragraphs of about 150, a quarter
# entries of a dictionary, most of them with fewer than 100.
MIX = (("eval/scifact", 0.5), ("eval/squad_dev", 0.25), ("scale/foldoc", 0.25))


@dataclass(frozen=True)
class CandidateQuery:
    """A query, and its candidates in the order in which every system gets them."""

    id: str
    text: str
    candidates: tuple[Passage, ...]

    def first(self, count: int) -> CandidateQuery:
        return CandidateQuery(self.id, self.text, self.candidates[:count])


class Pool:
    """Passages, and BM25 over them."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = list(passages)
        self._by_id = {passage.id: passage for passage in self.passages}
        self._bm25 = BM25()
        self._bm25.build(self.passages)

    def best(self, query: str, depth: int) -> list[Passage]:
        """Return at most `depth` passages that share a word with `query`, best first."""
        return [self._by_id[key] for key in self._bm25.retrieve(self._bm25.encode(query), depth)]


def passages_of(data: Path, name: str) -> list[Passage]:
    """Return the passages of a collection in BEIR layout, or of a file of passages alone."""
    folder = data / name
    if folder.is_dir():
        return list(load_dataset(folder).passages)
    with gzip.open(data / f"{name}.corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = map(json.loads, lines)
        return [Passage(line["_id"], f"{line['title']} {line['text']}", {"title": line["title"]}) for line in records]


def queries_of(data: Path, name: str) -> list[tuple[str, str]]:
    """Return id and text of the judged queries of a collection, in a random order that is always the same."""
    queries = sorted(load_dataset(data / "eval" / name).queries.items())
    random.Random(0).shuffle(queries)
    return queries


def queries_with_candidates(
    queries: Sequence[tuple[str, str]], pool: Pool, count: int, depth: int
) -> list[CandidateQuery]:
    """Return the first `count` queries for which BM25 finds `depth` passages."""
    complete: list[CandidateQuery] = []
    for key, text in queries:
        best = pool.best(text, depth)
        if len(best) == depth:
            complete.append(CandidateQuery(key, text, tuple(best)))
        if len(complete) == count:
            break
    return complete


def mixed(data: Path, count: int, depth: int) -> list[CandidateQuery]:
    """Return queries of scifact with candidates of `MIX`, BM25's best of each, in a random order."""
    pools = [(Pool(passages_of(data, name)), round(share * depth)) for name, share in MIX]
    generator = random.Random(0)
    complete: list[CandidateQuery] = []
    for key, text in queries_of(data, "scifact"):
        best = [passage for pool, part in pools for passage in pool.best(text, part)]
        if len(best) == depth:
            generator.shuffle(best)
            complete.append(CandidateQuery(key, text, tuple(best)))
        if len(complete) == count:
            break
    return complete
