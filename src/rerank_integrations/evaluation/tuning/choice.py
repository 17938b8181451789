"""The rules: which of the settings tried is taken, and how many hits are handed on."""

from __future__ import annotations

from collections.abc import Sequence

from rerank_integrations.evaluation.summary import CHANCE, p_value
from rerank_integrations.evaluation.tuning.results import Trial

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
