"""Options of a reranking: one frozen value, checked where it is made, for every reranker and both frameworks.

A new option is a field of `RerankOptions` with its check, a key of `RerankArguments`, its use in `Reranker` or in a
scorer, and one field of the rerankers' base class per framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from rerank_integrations.core.checks import require_bool, whole_number
from rerank_integrations.core.ranking import require_count, require_cut
from rerank_integrations.core.reranking.calibration import Calibration, CalibrationLike, as_calibration
from rerank_integrations.core.reranking.windows import Windows, require_windows
from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from typing_extensions import Self

ColBERTScale = Literal["sum", "mean"]

CACHE_BYTES = 128 * 2**20

# An option with this mark is an argument of the scorer; changing it needs another scorer.
_SCORER_ARGUMENT = {"scorer_argument": True}


@dataclass(frozen=True)
class RerankOptions:
    """Options that every reranker takes.

    Parameters
    ----------
    top_n
        How many candidates to keep; ``None`` keeps all.
    threshold
        Keep only scores of at least this (inclusive). A framework's component calls it ``score_threshold``.
    window, stride
        In tokens. With a `window`, a longer text is scored by overlapping windows, and the best one counts. The
        `stride` is half a window by default.
    strict
        Whether a text that would be cut is an error, before anything is scored.
    max_candidates
        Only the first so many candidates are scored, the others omitted; ``None`` scores all.
    calibration
        From `fit_calibration`, of the same scorer, or what its ``to_dict`` returns: scores and `threshold` are
        probabilities then.

    Raises
    ------
    InvalidInputError
        For an option of a wrong kind. A wrong `window` or `stride` raises it in `windows`: before these, a scorer
        says whether it can score by windows at all.
    """

    top_n: int | None = None
    threshold: float | None = field(default=None, metadata={"component_name": "score_threshold"})
    window: int | None = field(default=None, metadata=_SCORER_ARGUMENT)
    stride: int | None = field(default=None, metadata=_SCORER_ARGUMENT)
    strict: bool = False
    max_candidates: int | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        require_bool(self.strict, "strict")
        object.__setattr__(self, "calibration", as_calibration(self.calibration))
        top_n, threshold = require_cut(self.top_n, self.threshold)
        self._replace_by_python_number("top_n", top_n)
        self._replace_by_python_number("threshold", threshold)
        if self.max_candidates is not None:
            self._replace_by_python_number("max_candidates", require_count(self.max_candidates, "max_candidates"))

    @property
    def windows(self) -> Windows | None:
        """The windows of `window` and `stride`; ``None`` without a `window`."""
        return require_windows(self.window, self.stride)

    def scorer_arguments(self) -> dict[str, Any]:
        """Return the options that a scorer is constructed with."""
        return {item.name: getattr(self, item.name) for item in fields(self) if "scorer_argument" in item.metadata}

    @classmethod
    def from_component(cls, values: Mapping[str, object]) -> Self:
        """Return the options among the values of a component's fields; an option that is absent has its default."""
        names = {item.name: item.metadata.get("component_name", item.name) for item in fields(cls)}
        options: dict[str, Any] = {name: values[key] for name, key in names.items() if key in values}
        return cls(**options)

    def _replace_by_python_number(self, name: str, value: float | None) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class ColBERTRerankOptions(RerankOptions):
    """Options of a ColBERT reranker.

    Parameters
    ----------
    scale
        ``"sum"`` over the query's tokens (MaxSim), or ``"mean"``, which compares across queries.
    cache_bytes
        How many bytes of vectors of encoded candidates are cached for the next calls.
    """

    scale: ColBERTScale = field(default="sum", metadata=_SCORER_ARGUMENT)
    cache_bytes: int = field(default=CACHE_BYTES, metadata=_SCORER_ARGUMENT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.scale, str) or self.scale not in ("sum", "mean"):
            raise InvalidInputError(f"scale is {self.scale!r}; expected 'sum' or 'mean'")
        self._replace_by_python_number("cache_bytes", whole_number(self.cache_bytes, "cache_bytes"))


class RerankArguments(TypedDict, total=False):
    """Keyword arguments of a framework's component for `RerankOptions`; `top_n` has a default per framework.

    ``scores_in_metadata`` concerns the component alone: whether scores and notes go into the metadata of its results.
    """

    score_threshold: float | None
    window: int | None
    stride: int | None
    strict: bool
    max_candidates: int | None
    calibration: CalibrationLike | None
    scores_in_metadata: bool


class ColBERTRerankArguments(RerankArguments, total=False):
    """Keyword arguments of a framework's component for `ColBERTRerankOptions`."""

    scale: ColBERTScale
    cache_bytes: int
