"""Where the best of many scores begin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def score_of_best(scores: Sequence[NDArray[np.float64]], count: int) -> float:
    """Return the score that the best `count` of several arrays reach; minus infinity if there are no more."""
    everyone = scores[0] if len(scores) == 1 else np.concatenate([np.empty(0), *scores])
    if len(everyone) <= count:
        return -np.inf
    place = len(everyone) - count
    return float(np.partition(everyone, place)[place])
