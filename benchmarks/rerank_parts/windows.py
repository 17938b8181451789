"""Answers beyond the model's length, with windows and without."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from rerank_integrations import CandidateScorer, ColBERTScorer, CrossEncoderScorer, Passage, rerank
from rerank_integrations.evaluation import load_dataset
from rerank_parts.bench import Bench, K
from rerank_parts.data import Pool, passages_of

WINDOW = 256
# With so many, chance ranks the right one among the best 10 for half of the queries.
CANDIDATES = 20
# Tokens that the starter models read of a text, or of a query and a text.
_READ = 512
# Documents are encoded once for all queries.
_CACHE_BYTES = 2**30


@dataclass(frozen=True)
class _Question:
    text: str
    answer: Passage


def windows(bench: Bench) -> None:
    """Rank long documents, of which one ends with the paragraph that answers the question.

    A document is paragraphs of SQuAD of other articles, past what a model reads, and then the paragraph. The others are
    those whose last paragraphs BM25 takes for the best answers.
    """
    questions = _questions(bench)
    endings = Pool([question.answer for question in questions])
    documents = _documents(bench, endings.passages)
    chosen = [
        (question, [documents[key] for key in _candidates(question, endings)])
        for question in questions[: bench.sizes.windows]
    ]
    scorers: list[tuple[str, str, CandidateScorer]] = [
        ("colbert", "beginning", ColBERTScorer(bench.colbert, cache_bytes=_CACHE_BYTES)),
        ("colbert", "windows", ColBERTScorer(bench.colbert, window=WINDOW, cache_bytes=_CACHE_BYTES)),
        ("cross_encoder", "beginning", CrossEncoderScorer(bench.cross_encoder)),
        ("cross_encoder", "windows", CrossEncoderScorer(bench.cross_encoder, window=WINDOW)),
    ]
    title = f"windows: {len(chosen)} questions, {CANDIDATES} documents each, the answer past {_READ} tokens"
    table = Table("model", "read", f"recall@{K}", "recall@1", title=title)
    for name, how, scorer in scorers:
        bench.tell(f"windows: {name}, {how}")
        ranks = [_rank(scorer, question, candidates) for question, candidates in chosen]
        recall, first = (sum(rank <= depth for rank in ranks) / len(ranks) for depth in (K, 1))
        table.add_row(name, f"{how} of {WINDOW}" if how == "windows" else how, f"{recall:.3f}", f"{first:.3f}")
        bench.note(f"windows_{name}_{how}_recall10", recall)
        bench.note(f"windows_{name}_{how}_recall1", first)
    bench.show(table)
    bench.note("windows_queries", len(chosen))


def _questions(bench: Bench) -> list[_Question]:
    """Return questions of different paragraphs, one for each long document."""
    data = load_dataset(bench.data / "eval" / "squad_dev")
    passages = {passage.id: passage for passage in data.passages}
    keys = sorted(data.queries)
    random.Random(0).shuffle(keys)
    questions: dict[str, _Question] = {}
    for key in keys:
        answer = next(passage for passage, grade in data.qrels[key].items() if grade > 0)
        questions.setdefault(answer, _Question(data.queries[key], passages[answer]))
        if len(questions) == bench.sizes.long_documents:
            break
    return list(questions.values())


def _documents(bench: Bench, endings: Sequence[Passage]) -> dict[str, Passage]:
    """Return, by the id of its last paragraph, each long document."""
    used = {passage.id for passage in endings}
    others = [passage for passage in passages_of(bench.data, "eval/squad_dev") if passage.id not in used]
    tokens = [len(spans) for spans in bench.colbert.token_spans([passage.text for passage in others])]
    generator = random.Random(1)
    return {ending.id: _document(ending, list(zip(others, tokens, strict=True)), generator) for ending in endings}


def _document(ending: Passage, others: list[tuple[Passage, int]], generator: random.Random) -> Passage:
    generator.shuffle(others)
    texts: list[str] = []
    before = 0
    for passage, tokens in others:
        if passage.metadata["title"] == ending.metadata["title"]:
            continue
        texts.append(passage.text)
        before += tokens
        if before > _READ:
            break
    return Passage(ending.id, " ".join([*texts, ending.text]))


def _candidates(question: _Question, endings: Pool) -> list[str]:
    """Return the ids of the right document and of those that BM25 ranks best by their endings, sorted."""
    best = [passage.id for passage in (*endings.best(question.text, CANDIDATES), *endings.passages)]
    others = [key for key in dict.fromkeys(best) if key != question.answer.id]
    return sorted([question.answer.id, *others[: CANDIDATES - 1]])


def _rank(scorer: CandidateScorer, question: _Question, documents: Sequence[Passage]) -> int:
    return next(hit.rank for hit in rerank(question.text, documents, scorer) if hit.id == question.answer.id)
