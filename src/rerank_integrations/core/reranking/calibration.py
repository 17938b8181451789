"""A calibration: the function from a scorer's scores to probabilities of relevance, as plain data."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from rerank_integrations.core.checks import is_number, whole_number
from rerank_integrations.errors import InvalidInputError

CalibrationMethod: TypeAlias = Literal["platt", "isotonic"]
"""How scores become probabilities, explained at `fit_calibration`."""


@dataclass(frozen=True)
class Calibration:
    """A non-decreasing function from a scorer's scores to probabilities of relevance, as `fit_calibration` returns it.

    It is plain numbers: `to_dict` and `from_dict`, `save` and `load` write and read JSON.

    Parameters
    ----------
    method
        ``"platt"``: the sigmoid of ``slope * score + intercept``. ``"isotonic"``: straight lines between the points
        (scores[i], probabilities[i]), constant outside of them.
    slope, intercept
        Of ``"platt"``; `slope` is above 0. Else 0.
    scores, probabilities
        Of ``"isotonic"``, at least two of each: `scores` rising, `probabilities` not falling, from 0 to 1. Else empty.
    pairs, relevant
        The numbers of pairs that it was fitted to, and of the relevant ones among them.
    brier
        Mean squared difference of probability and label (0 or 1) on these pairs; lower is better. On pairs that it was
        not fitted to it is higher.

    Raises
    ------
    InvalidInputError
        For values that make no such function.
    """

    method: CalibrationMethod
    slope: float = 0.0
    intercept: float = 0.0
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    pairs: int = 0
    relevant: int = 0
    brier: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in get_args(CalibrationMethod):
            raise InvalidInputError(f"method is {self.method!r}; expected one of {get_args(CalibrationMethod)}")
        for name in ("slope", "intercept", "brier"):
            object.__setattr__(self, name, _finite(getattr(self, name), name))
        for name in ("scores", "probabilities"):
            object.__setattr__(self, name, _numbers(getattr(self, name), name))
        for name in ("pairs", "relevant"):
            object.__setattr__(self, name, whole_number(getattr(self, name), name))
        if self.method == "platt":
            self._require_sigmoid()
        else:
            self._require_points()

    def _require_sigmoid(self) -> None:
        if self.slope <= 0:
            raise InvalidInputError(f"slope is {self.slope!r}; expected a number above 0, as a higher score is better")
        if self.scores or self.probabilities:
            raise InvalidInputError("scores or probabilities with method='platt'; expected slope and intercept alone")

    def _require_points(self) -> None:
        if len(self.scores) != len(self.probabilities) or len(self.scores) < 2:
            raise InvalidInputError(
                f"{len(self.scores)} scores and {len(self.probabilities)} probabilities; expected as many, two at least"
            )
        rising = all(low < high for low, high in pairwise(self.scores))
        if not rising or any(low > high for low, high in pairwise(self.probabilities)):
            raise InvalidInputError("scores or probabilities fall; expected rising scores, and no falling probability")
        if self.probabilities[0] < 0 or self.probabilities[-1] > 1:
            raise InvalidInputError("a probability is below 0 or above 1; expected numbers from 0 to 1")
        if self.slope or self.intercept:
            raise InvalidInputError("slope or intercept with method='isotonic'; expected points alone")

    def probability(self, score: float) -> float:
        """Return the probability, from 0 to 1, that a text of this score is relevant.

        Raises
        ------
        InvalidInputError
            For anything but a number. Infinity is one, NaN is not.
        """
        if not is_number(score):
            raise InvalidInputError(f"score is {score!r}; expected a number")
        if self.method == "isotonic":
            return float(np.interp(score, self.scores, self.probabilities))
        logit = self.slope * score + self.intercept
        # The two-sided form: exp of a large number overflows.
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes and `from_dict` reads."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration of a dictionary that `to_dict` made, perhaps read from JSON.

        Raises
        ------
        InvalidInputError
            For another dictionary.
        """
        if not isinstance(values, Mapping):
            raise InvalidInputError(f"calibration is of type {type(values).__name__}; expected what to_dict returns")
        known = {item.name for item in fields(cls)}
        if set(values) - known or "method" not in values:
            raise InvalidInputError(f"a calibration has the keys {sorted(map(str, values))}; expected {sorted(known)}")
        return cls(**values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to `path` as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Return the calibration that `save` wrote to `path`; nothing in the file can run.

        Raises
        ------
        InvalidInputError
            If there is no such file, or it is something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{os.fspath(path)!r} is no calibration ({error}); expected one of save") from error
        return cls.from_dict(content)


CalibrationLike: TypeAlias = Calibration | Mapping[str, Any]
"""A calibration, or the dictionary that its ``to_dict`` returns."""


def as_calibration(value: CalibrationLike | None) -> Calibration | None:
    """Return `value` itself, or the calibration of a dictionary that ``to_dict`` made."""
    return value if value is None or isinstance(value, Calibration) else Calibration.from_dict(value)


def calibration_spec(value: CalibrationLike | None) -> dict[str, Any] | None:
    """Return the dictionary that stands for `value` where a component is serialised."""
    calibration = as_calibration(value)
    return None if calibration is None else calibration.to_dict()


def _finite(value: object, name: str) -> float:
    if not is_number(value) or not math.isfinite(value):
        raise InvalidInputError(f"{name} is {value!r}; expected a finite number")
    return float(value)


def _numbers(values: Sequence[float], name: str) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidInputError(f"{name} is {values!r}; expected a list of numbers")
    return tuple(_finite(value, f"one of {name}") for value in values)
