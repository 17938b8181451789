"""Several rerankers, each over the best of the one before it, within a time budget.

After "Document Ranking with a Pretrained Sequence-to-Sequence Model"'s multi-stage pipelines (Nogueira et al., 2019,
arXiv:1910.14424): what is cheap ranks many, what is dear ranks the best few.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rerank_integrations.core.checks import is_number
from rerank_integrations.core.concurrency.cancel import GivenUpError, OutOfTimeError, within
from rerank_integrations.core.ranking import require_cut
from rerank_integrations.core.reranking.candidates import Candidate, Ranked
from rerank_integrations.core.reranking.reranker import Reranker, require_query
from rerank_integrations.errors import InvalidInputError

logger = logging.getLogger(__name__)

_CAME = ("retrieval_score", "retrieval_rank")


@dataclass(frozen=True)
class Stage:
    """A named step of a cascade; its ``top_n`` is what the next one gets."""

    name: str
    reranker: Reranker


class Cascade:
    """Rerankers one after another; any number of threads may use it.

    Parameters
    ----------
    stages
        `Stage`s, or (name, `Reranker`) pairs, at least one.
    top_n
        How many to keep in the end; ``None`` keeps what the last stage that was done keeps.
    time_budget
        Seconds for one query; ``None`` for no limit. When it runs out, or when a stage fails, the order of the stage
        before it comes back, and every note says so under ``rerank_stopped``. Before the first stage that is the order
        given, of its `top_n`, with the scores given (0.0 where there are none). What runs meanwhile stops before its
        next batch.

    Raises
    ------
    InvalidInputError
        For no stages, two of one name, or an argument of a wrong kind.
    """

    def __init__(
        self,
        stages: Sequence[Stage | tuple[str, Reranker]],
        *,
        top_n: int | None = None,
        time_budget: float | None = None,
    ) -> None:
        self._stages = [_stage(stage) for stage in stages]
        if not self._stages:
            raise InvalidInputError("a cascade of no stages; expected at least one")
        names = [stage.name for stage in self._stages]
        if len(set(names)) < len(names):
            raise InvalidInputError(f"the stages are named {names}; expected names that differ")
        self._top_n, _ = require_cut(top_n, None)
        self._time_budget = require_budget(time_budget)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[Ranked]:
        """Return the candidates that are kept, best first.

        Raises
        ------
        InvalidInputError
            For a query without text. What fails in a stage is logged and noted, not raised.
        """
        return self.rank_stages(query, [candidates] * len(self._stages))

    def rank_stages(self, query: str, candidates: Sequence[Sequence[Candidate]]) -> list[Ranked]:
        """Do as `rank`, where each stage reads the candidates in a form of its own; one list a stage."""
        require_query(query)
        if len({len(given) for given in candidates}) != 1 or len(candidates) != len(self._stages):
            raise InvalidInputError(
                f"lists of {[len(given) for given in candidates]} candidates for {len(self._stages)} stages; "
                "expected the same candidates for each"
            )
        deadline = None if self._time_budget is None else time.monotonic() + self._time_budget
        order = [Ranked(place, _given_score(one), one.came(place)) for place, one in enumerate(candidates[0])]
        for stage, given in zip(self._stages, candidates, strict=True):
            if not order or self._top_n == 0:
                break
            try:
                order = _next(stage, query, given, order, deadline)
            except GivenUpError:
                # Of the caller's work as a whole: nobody waits for any order.
                raise
            except Exception as error:
                # Whatever it is: an answer in the order that is at hand is worth more than none.
                stopped = {"rerank_stopped": self._stopped(stage, error)}
                order = [replace(one, note={**one.note, **stopped}) for one in order]
                break
        return order[: self._top_n]

    def _stopped(self, stage: Stage, error: Exception) -> str:
        """Return, and log, why the cascade ends at `stage`."""
        late = isinstance(error, OutOfTimeError)
        said = f"the time budget of {self._time_budget:g} s ran out" if late else f"{type(error).__name__}: {error}"
        level = logging.INFO if late else logging.ERROR
        logger.log(level, "reranking stopped at %s: %s", stage.name, said, exc_info=not late)
        return f"{stage.name}: {said}"

    def rank_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Ranked]]:
        """Do as `rank` for several queries, one after another, each with the whole time budget."""
        return [self.rank(query, given) for query, given in zip(queries, candidates, strict=True)]


def require_budget(seconds: float | None) -> float | None:
    """Return `seconds` as a Python float; raise `InvalidInputError` unless it is ``None`` or a number above 0."""
    if seconds is None:
        return None
    if not is_number(seconds) or not 0 < seconds < float("inf"):
        raise InvalidInputError(f"time_budget is {seconds!r}; expected seconds above 0, or None")
    return float(seconds)


def _stage(given: Any) -> Stage:
    name, reranker = (given.name, given.reranker) if isinstance(given, Stage) else _pair(given)
    if not isinstance(name, str) or not isinstance(reranker, Reranker):
        raise InvalidInputError(f"a stage is {given!r}; expected a name and a Reranker")
    return Stage(name, reranker)


def _pair(given: Any) -> tuple[Any, Any]:
    return (given[0], given[1]) if isinstance(given, tuple | list) and len(given) == 2 else (None, None)


def _next(
    stage: Stage, query: str, candidates: Sequence[Candidate], order: Sequence[Ranked], deadline: float | None
) -> list[Ranked]:
    chosen = [candidates[one.place] for one in order]
    if deadline is None:
        ranked = stage.reranker.rank(query, chosen)
    else:
        left = deadline - time.monotonic()
        if left <= 0:
            raise OutOfTimeError("no time was left")
        ranked = within(left, lambda: stage.reranker.rank(query, chosen))
    return [_joined(order[one.place], one, stage.name) for one in ranked]


def _joined(before: Ranked, after: Ranked, stage: str) -> Ranked:
    """Return where and how `after` stands, with what its retriever gave it and the scores of all stages."""
    came = {key: before.note[key] for key in _CAME if key in before.note}
    scores = {**before.note.get("rerank_scores", {}), stage: after.score}
    note = {key: value for key, value in after.note.items() if key not in _CAME}
    return Ranked(before.place, after.score, {**came, **note, "rerank_stage": stage, "rerank_scores": scores})


def _given_score(candidate: Candidate) -> float:
    return float(candidate.came(0).get("retrieval_score", 0.0))
