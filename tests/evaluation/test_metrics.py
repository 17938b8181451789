"""Metrics against their definitions, written out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from rerank_integrations.evaluation import METRICS, evaluate_run
from rerank_integrations.evaluation.metrics import means


def naive(grades: Mapping[str, int], ranking: list[str]) -> dict[str, float]:
    """Compute trec_eval's recall_k, ndcg_cut_10 and recip_rank from their definitions, the last one cut at 10."""
    relevant = {passage for passage, grade in grades.items() if grade > 0}
    gains = [max(grades.get(passage, 0), 0) for passage in ranking[:10]]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:10]
    first = next((rank for rank, gain in enumerate(gains, 1) if gain), math.inf)
    return {
        "recall@10": len(relevant & set(ranking[:10])) / len(relevant),
        "recall@100": len(relevant & set(ranking[:100])) / len(relevant),
        "nDCG@10": discounted(gains) / discounted(ideal),
        "MRR@10": 1 / first,
    }


def discounted(gains: list[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


@pytest.mark.parametrize("seed", range(5))
def test_values_are_the_definitions(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = [f"p{number}" for number in range(300)]
    qrels, run = {}, {}
    for query in range(40):
        judged = random.choice(names, 20, replace=False)
        qrels[f"q{query}"] = {str(name): int(random.integers(0, 3)) for name in judged} | {str(judged[0]): 1}
        found = random.choice(names, int(random.integers(1, 200)), replace=False)
        run[f"q{query}"] = {
            str(name): float(score) for name, score in zip(found, random.random(len(found)), strict=True)
        }
    values = evaluate_run(qrels, run)
    assert set(values) == set(METRICS)
    for query, grades in qrels.items():
        ranking = sorted(run[query], key=lambda name: -run[query][name])
        expected = naive(grades, ranking)
        assert {name: values[name][query] for name in METRICS} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_values_are_trec_evals_on_the_same_run_files(seed: int, tmp_path: Path) -> None:
    """Compare on ties, negative grades, and queries without hits or judgements."""
    random = np.random.default_rng(seed)
    names = [f"p{number}" for number in range(60)]
    judged = [
        (f"q{query}", name, random.integers(-1, 4)) for query in range(30) for name in random.choice(names, 12, False)
    ]
    judged += [(f"q{query}", "best", 1) for query in range(30)]
    found = [
        (f"q{query}", name, random.integers(0, 5)) for query in range(1, 32) for name in random.choice(names, 40, False)
    ]
    (tmp_path / "qrels").write_text("".join(f"{query} 0 {name} {grade}\n" for query, name, grade in judged))
    (tmp_path / "run").write_text("".join(f"{query} Q0 {name} 0 {score} x\n" for query, name, score in found))
    with (tmp_path / "qrels").open() as qrels_file, (tmp_path / "run").open() as run_file:
        qrels, run = pytrec_eval.parse_qrel(qrels_file), pytrec_eval.parse_run(run_file)
    ours = evaluate_run(qrels, run)
    measures = {"recall@10": "recall_10", "recall@100": "recall_100", "nDCG@10": "ndcg_cut_10"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(measures.values())).evaluate(run)
    # trec_eval cuts no run for the reciprocal rank: it is to see the first ten, in its own order of ties.
    ten = {query: dict(sorted(scores.items(), key=lambda one: (one[1], one[0]))[-10:]) for query, scores in run.items()}
    ranks = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(ten)
    for query in qrels:
        for name, measure in measures.items():
            assert ours[name][query] == pytest.approx(theirs.get(query, {}).get(measure, 0.0), abs=5e-5), (name, query)
        assert ours["MRR@10"][query] == pytest.approx(ranks.get(query, {}).get("recip_rank", 0.0), abs=5e-5), query


def test_a_query_that_found_nothing_counts_as_0() -> None:
    values = evaluate_run({"q1": {"a": 1}, "q2": {"a": 1}}, {"q1": {"a": 2.0}})
    assert {name: by_query["q2"] for name, by_query in values.items()} == dict.fromkeys(METRICS, 0.0)
    assert means(values) == dict.fromkeys(METRICS, 0.5)


def test_what_was_not_asked_is_left_out() -> None:
    assert set(evaluate_run({"q1": {"a": 1}}, {"q1": {"a": 1.0}, "q7": {"a": 1.0}})["nDCG@10"]) == {"q1"}
