"""`tune`: one thing varied after the other, each on top of what has been chosen so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from rerank_integrations.core.models import TokenEncoder, as_colbert_model, as_cross_encoder_model
from rerank_integrations.core.types import Scorer
from rerank_integrations.errors import InvalidInputError, MissingExtraError
from rerank_integrations.evaluation.data import Dataset
from rerank_integrations.evaluation.pipelines import STARTER
from rerank_integrations.evaluation.summary import CHANCE, p_value
from rerank_integrations.evaluation.tuning.bench import DEPTH, PERCENTILES, Bench
from rerank_integrations.evaluation.tuning.results import Setting, Trial, Tuning

# Of nDCG@10. With few queries even a large loss may be chance; so much of it is never taken.
MOST_LOSS = 0.01
# Medians as near as this are taken for equal.
_NEAR = 1.05


def choose(trials: Sequence[Trial], budget_ms: float, percentile: int) -> Trial:
    """Return the cheapest of the trials within the budget that are as good as the best of them.

    As good: its nDCG@10 is at most `MOST_LOSS` lower, and the difference may be chance. Cheapest: the fewest bytes a
    token, then the least time at the median, where times within 5 % are equal and the one tried first is taken. If none
    is within the budget, the fastest.
    """
    fitting = [trial for trial in trials if trial.ms[percentile] <= budget_ms]
    if not fitting:
        return min(trials, key=lambda trial: trial.ms[percentile])
    best = max(fitting, key=lambda trial: trial.quality["nDCG@10"])
    good = [trial for trial in fitting if as_good(trial, best)]
    smallest = min(trial.bytes_per_token for trial in good)
    small = [trial for trial in good if trial.bytes_per_token == smallest]
    fastest = min(trial.ms[50] for trial in small)
    return next(trial for trial in small if trial.ms[50] <= _NEAR * fastest)


def as_good(trial: Trial, best: Trial) -> bool:
    """Whether what `trial` loses against `best` is little and may be chance."""
    chance = p_value(best.ndcg, trial.ndcg)
    return best.quality["nDCG@10"] - trial.quality["nDCG@10"] <= MOST_LOSS and (chance is None or chance >= CHANCE)


def enough(recall: Sequence[float], share: float) -> int:
    """Return the smallest depth at which recall reaches a share of what it is at the last one.

    Parameters
    ----------
    recall
        At 1, 2, 3 ... hits.
    """
    # Sums of floats in other orders differ in their last bits.
    wanted = share * recall[-1] - 1e-9
    return next(depth for depth, value in enumerate(recall, start=1) if value >= wanted)


_NBITS = (1, 2, 4)
_DEFAULT_NBITS = 2
_CANDIDATES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_PROBES = (1, 2, 3, 4, 6, 8)
_READ = (10, 25, 50, 100)
# A search for fewer hits does the same work.
_LEAST_HITS = 10
_SEED = 0


def tune(
    data: Dataset,
    model: str | Path | TokenEncoder = STARTER,
    *,
    budget_ms: float = 20.0,
    percentile: int = 95,
    top_n: int | None = None,
    recall_share: float = 0.99,
    cross_encoder: str | Path | Scorer | None = None,
    queries: int = 300,
) -> Tuning:
    """Choose the settings of a ColBERT index for a time that a query may take.

    Parameters
    ----------
    data
        Of `load_dataset`: the passages that the index will hold, or as many.
    model
        A ColBERT model, or the name or path of one.
    budget_ms
        Milliseconds of a query by one caller, its encoding included.
    percentile
        Where they count: 95, or 50 for the median.
    top_n
        How many hits are handed on, to a reader or a language model, 1 to 100. By default as few as reach
        `recall_share` of the recall at 100.
    recall_share
        Above 0, at most 1.
    cross_encoder
        Also choose how many hits this one reads: none, 10, 25, 50 or 100.
    queries
        How many are asked at most. If there are more, they are drawn with a fixed seed.

    Raises
    ------
    InvalidInputError
        For an argument outside of these, before anything is encoded.
    CheckpointError
        If a model cannot be loaded.
    MissingExtraError
        Without the extra ``[evaluate]``.
    """
    _check(budget_ms, percentile, top_n, recall_share, queries)
    encoder = as_colbert_model(model)
    reader = None if cross_encoder is None else as_cross_encoder_model(cross_encoder)
    asked = data.drawn(queries)
    if reader is not None:
        # Loaded now: that it cannot be is to be told before all passages are encoded.
        reader.score(next(iter(asked.queries.values())), [data.passages[0].text])
    with Bench(asked, encoder, reader) as bench:
        hits = top_n or enough(bench.exact.recall, recall_share)
        compressed = bench.is_compressed(_DEFAULT_NBITS)
        trials: list[Trial] = []
        for step in _steps(compressed, reader is not None, max(hits, _LEAST_HITS), len(data.passages)):
            _take(step, bench, trials, budget_ms, percentile)
        chosen = choose(trials, budget_ms, percentile)
        if chosen.setting.read and top_n is None:
            # In a better order fewer are enough.
            hits = min(hits, enough(chosen.recall, recall_share))
        called = replace(chosen.setting, k=max(hits, chosen.setting.read, _LEAST_HITS))
        if called != chosen.setting:
            chosen = bench.trial("k", called)
            trials.append(chosen)
        return Tuning(
            data=asked.facts(),
            queries_in_all=len(data.queries),
            model=str(encoder.name),
            cross_encoder=None if reader is None else str(getattr(reader, "name", type(reader).__name__)),
            tokens=bench.tokens,
            dim=encoder.dim,
            compressed=compressed,
            budget_ms=budget_ms,
            percentile=percentile,
            encode_ms=bench.encode_ms,
            exact=bench.exact,
            trials=tuple(trials),
            chosen=chosen,
            top_n=hits,
            called_ms=bench.called_ms(called),
        )


@dataclass(frozen=True)
class _Step:
    """What is varied, the settings for it on top of what is chosen, and whether each of them takes longer."""

    name: str
    settings: Callable[[Setting], list[Setting]]
    rising: bool = True


def _steps(compressed: bool, with_reader: bool, k: int, passages: int) -> Iterator[_Step]:
    first = Setting(_DEFAULT_NBITS, None, None, k)
    if compressed:
        yield _Step("nbits", lambda _: [replace(first, nbits=nbits) for nbits in _NBITS], rising=False)
        # Fewer than k are k, and all of them are an exact search.
        candidates = [count for count in _CANDIDATES if k <= count < passages]
        yield _Step("n_candidates", lambda base: [replace(base, n_candidates=count) for count in candidates])
        yield _Step("n_probe", lambda base: [replace(base, n_probe=count) for count in _PROBES])
    else:
        yield _Step("index", lambda _: [first])
    if with_reader:
        read = sorted({min(count, passages) for count in _READ})
        yield _Step("cross-encoder", lambda base: [replace(base, read=count, k=max(k, count)) for count in read])


def _take(step: _Step, bench: Bench, trials: list[Trial], budget_ms: float, percentile: int) -> None:
    """Append a step's trials, up to the first over the budget where the others take longer still."""
    base = choose(trials, budget_ms, percentile).setting if trials else Setting(None, None, None, 0)
    for setting in step.settings(base):
        trials.append(bench.trial(step.name, setting))
        if step.rising and trials[-1].ms[percentile] > budget_ms:
            return


def _check(budget_ms: float, percentile: int, top_n: int | None, recall_share: float, queries: int) -> None:
    if find_spec("ir_measures") is None:
        raise MissingExtraError("evaluate", "tuning")
    if not 0 < budget_ms < math.inf:
        raise InvalidInputError(f"budget_ms is {budget_ms!r}; expected milliseconds, above 0")
    if percentile not in PERCENTILES:
        raise InvalidInputError(f"percentile is {percentile!r}; expected 50 or 95")
    if top_n is not None and (type(top_n) is not int or not 1 <= top_n <= DEPTH):
        raise InvalidInputError(f"top_n is {top_n!r}; expected a whole number from 1 to {DEPTH}")
    if not 0 < recall_share <= 1:
        raise InvalidInputError(f"recall_share is {recall_share!r}; expected a number above 0, at most 1")
