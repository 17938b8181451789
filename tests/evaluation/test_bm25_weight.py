"""The weight of BM25 is fitted to judged queries, and measured on queries that it was not fitted to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, InvalidInputError, Passage
from rerank_integrations.cli import main
from rerank_integrations.evaluation import Dataset, fit_bm25_weight, tune

WORDS = [f"word{number}" for number in range(40)]
PASSAGES = tuple(
    Passage(f"p{n}", f"{WORDS[n % 40]} {WORDS[n * 3 % 37]} {WORDS[n * 7 % 31]}", {"n": n}) for n in range(120)
)
QUERIES = {f"q{n}": f"{WORDS[n]} {WORDS[n * 5 % 40]}" for n in range(20)}


@pytest.fixture
def index() -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert(PASSAGES)
        yield index


def judged_by(index: ColBERTIndex, kind: str) -> Dataset:
    """Return judgements that agree with one kind of search: its best three are relevant."""
    options = {"bm25_weight": 0.5} if kind == "hybrid" else {}
    qrels = {
        key: {hit.id: 1 for hit in index.search(text, 3, search_type=kind, **options)}  # type: ignore[arg-type]
        for key, text in QUERIES.items()
    }
    return Dataset("judged", PASSAGES, QUERIES, qrels)


@pytest.mark.parametrize("kind", ["colbert", "bm25", "hybrid"])
def test_the_weight_follows_the_judgements(index: ColBERTIndex, kind: str) -> None:
    data = judged_by(index, kind)
    fit = fit_bm25_weight(index, data)
    assert fit.queries == len(QUERIES)
    assert len(fit.fold_weights) == 5
    if kind != "hybrid":
        assert fit.ndcg[kind] == 1.0
    assert (fit.weight < 0.5) == (kind == "colbert") or kind == "hybrid"
    # The figures of the parts are those of searches by themselves.
    for part in ("colbert", "bm25"):
        own = [
            ndcg(data.qrels[key], [hit.id for hit in index.search(text, 10, search_type=part)])  # type: ignore[arg-type]
            for key, text in QUERIES.items()
        ]
        assert fit.ndcg[part] == pytest.approx(np.mean(own))
    assert fit.by_weight[0.0] == pytest.approx(fit.ndcg["colbert"])
    json.dumps(fit.to_json())


def test_no_query_is_measured_with_a_weight_that_was_fitted_to_it(index: ColBERTIndex) -> None:
    # As many folds as queries: every query but one wants ColBERT's order, and that one is answered with their weight.
    data = judged_by(index, "colbert")
    by_bm25 = judged_by(index, "bm25")
    odd = max(QUERIES, key=lambda key: len(data.qrels[key].keys() ^ by_bm25.qrels[key].keys()))
    mixed = Dataset("mixed", PASSAGES, QUERIES, {**data.qrels, odd: by_bm25.qrels[odd]})
    fit = fit_bm25_weight(index, mixed, folds=len(QUERIES))
    weight = max(fit.fold_weights)
    assert weight <= 0.3
    expected = []
    for key, text in QUERIES.items():
        hits = index.search(text, 10, search_type="hybrid", bm25_weight=weight)
        expected.append(ndcg(mixed.qrels[key], [hit.id for hit in hits]))
    if len(set(fit.fold_weights)) == 1:
        assert fit.ndcg["hybrid"] == pytest.approx(np.mean(expected))
    assert fit.ndcg["hybrid"] <= max(fit.by_weight.values()) + 1e-9


def ndcg(grades: dict[str, int], found: list[str]) -> float:
    gains = sum(grades.get(key, 0) / np.log2(rank + 2) for rank, key in enumerate(found[:10]))
    return float(gains / sum(1 / np.log2(rank + 2) for rank in range(min(10, len(grades)))))


def test_bad_arguments_are_refused(index: ColBERTIndex) -> None:
    data = judged_by(index, "bm25")
    with pytest.raises(InvalidInputError, match="folds"):
        fit_bm25_weight(index, data, folds=1)
    with pytest.raises(InvalidInputError, match="20 queries"):
        fit_bm25_weight(index, data, folds=21)
    others = Dataset("others", PASSAGES, QUERIES, {key: {"nobody": 1} for key in QUERIES})
    with pytest.raises(InvalidInputError, match="others"):
        fit_bm25_weight(index, others)


def test_tune_fits_it_too(index: ColBERTIndex) -> None:
    tuning = tune(judged_by(index, "bm25"), ToyEncoder(), budget_ms=60_000.0)
    assert tuning.hybrid is not None
    assert tuning.hybrid.ndcg["bm25"] == 1.0
    assert json.loads(json.dumps(tuning.to_json()))["hybrid"]["weight"] == tuning.hybrid.weight
    few = Dataset("few", PASSAGES, {"q0": QUERIES["q0"]}, {"q0": {"p0": 1}})
    assert tune(few, ToyEncoder(), budget_ms=60_000.0).hybrid is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collection whose passages have a word that the query has, and others that do not."""
    (tmp_path / "qrels").mkdir()
    lines = [{"_id": f"d{n}", "title": "", "text": f"code {n:04} and some words"} for n in range(12)]
    asked = [{"_id": f"q{n}", "text": f"{n:04}"} for n in range(6)]
    for name, rows in (("corpus", lines), ("queries", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(6))
    (tmp_path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return tmp_path


def test_the_command_stores_the_weight(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "index"
    with ColBERTIndex.create(path, "starter") as index:
        index.upsert(["a passage"])
    with pytest.raises(SystemExit) as ended:
        main(["tune", str(folder), "--budget-ms", "60000", "--store", str(path)])
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert "5-fold cross-validation" in out
    with ColBERTIndex.open(path, read_only=True) as index:
        assert index.stats().bm25_weight == index.bm25_weight
        assert f"bm25_weight {index.bm25_weight:g} stored" in err
        assert f"bm25_weight = {index.bm25_weight:g} by all queries" in out
