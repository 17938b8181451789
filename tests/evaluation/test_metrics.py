"""Metrics against their definitions, written out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from rerank_integrations.evaluation import METRICS, evaluate_run
from rerank_integrations.evaluation.metrics import means


def naive(grades: Mapping[str, int], ranking: list[str]) -> dict[str, float]:
    """The definitions of trec_eval's recall_k, ndcg_cut_10 and recip_rank, the latter cut at 10."""
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


def test_a_query_that_found_nothing_counts_as_0() -> None:
    values = evaluate_run({"q1": {"a": 1}, "q2": {"a": 1}}, {"q1": {"a": 2.0}})
    assert {name: by_query["q2"] for name, by_query in values.items()} == dict.fromkeys(METRICS, 0.0)
    assert means(values) == dict.fromkeys(METRICS, 0.5)


def test_what_was_not_asked_is_left_out() -> None:
    assert set(evaluate_run({"q1": {"a": 1}}, {"q1": {"a": 1.0}, "q7": {"a": 1.0}})["nDCG@10"]) == {"q1"}
