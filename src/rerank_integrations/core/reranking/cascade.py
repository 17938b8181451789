"""A cascade: several rerankers, each over the best candidates of the one before it, within a time budget.

It follows the multi-stage pipelines of "Document Ranking with a Pretrained Sequence-to-Sequence Model" (Nogueira et
al., 2019, arXiv:1910.14424): a cheap reranker orders many candidates, an expensive one only the best.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from rerank_integrations.core import telemetry
from rerank_integrations.core.checks import is_number
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.concurrency.cancel import GivenUpError, OutOfTimeError, within
from rerank_integrations.core.ranking import require_cut
from rerank_integrations.core.reranking.candidates import Candidate, Ranked, distinct_positions
from rerank_integrations.core.reranking.reranker import Reranker, require_query
from rerank_integrations.core.types import RankingNote
from rerank_integrations.errors import InvalidInputError

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """A named step of a cascade; the next one gets the ``top_n`` candidates that it keeps."""

    name: str
    reranker: Reranker


class Cascade:
    """Rerankers one after another; any number of threads may use it.

    Parameters
    ----------
    stages
        `Stage`s, or (name, `Reranker`) pairs, at least one.
    top_n
        How many to keep in the end; ``None`` keeps what the last finished stage keeps.
    time_budget
        Seconds per query; ``None`` for no limit. When it runs out, or when a stage fails, the cascade returns the order
        of the stage before it, and every note says so under ``rerank_stopped``. Before the first stage that is the
        order given, cut to `top_n`, with the scores given (0.0 where there are none). A stage that still runs stops
        before its next batch.

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
            For a query without text. An error in a stage is logged and noted, not raised.
        """
        return self.rank_stages(query, [candidates] * len(self._stages))

    def rank_stages(self, query: str, candidates: Sequence[Sequence[Candidate]]) -> list[Ranked]:
        """Do as `rank`, where each stage reads the candidates in a form of its own; one list per stage."""
        order = self._order_given(query, candidates)
        deadline = self._deadline()
        with telemetry.reranking("Cascade.rank", [query], [candidates[0]], self, self._top_n) as span:
            for stage, of_stage in zip(self._stages, candidates, strict=True):
                if not order or self._top_n == 0:
                    break
                try:
                    order = _rerank_order(stage, query, of_stage, order, deadline)
                except GivenUpError:
                    # The caller gave up on its work as a whole: nobody waits for any order.
                    raise
                except Exception as error:
                    # After any error an answer in the order so far is worth more than none.
                    order = self._stopped(order, stage, error)
                    span.set(stopped_at=stage.name)
                    break
            return span.ranked([candidates[0]], [order[: self._top_n]])[0]

    @property
    def name(self) -> str:
        """The name that traces show: the names of the stages' models, in their order."""
        return " > ".join(stage.reranker.name for stage in self._stages)

    @property
    def needs_thread(self) -> bool:
        """Whether async callers must run `rank` on a thread; else they await `arank`.

        They need none if a stage waits for a service; the other stages then have a thread each while they compute.
        """
        return all(stage.reranker.needs_thread for stage in self._stages)

    async def arank(self, query: str, candidates: Sequence[Candidate]) -> list[Ranked]:
        """Do as `rank` off the event loop: no thread waits for a service."""
        return await self.arank_stages(query, [candidates] * len(self._stages))

    async def arank_stages(self, query: str, candidates: Sequence[Sequence[Candidate]]) -> list[Ranked]:
        """Do as `rank_stages` off the event loop: no thread waits for a service."""
        if self.needs_thread:
            return await run_blocking(self.rank_stages, query, candidates)
        order = self._order_given(query, candidates)
        deadline = self._deadline()
        with telemetry.reranking("Cascade.rank", [query], [candidates[0]], self, self._top_n) as span:
            for stage, of_stage in zip(self._stages, candidates, strict=True):
                if not order or self._top_n == 0:
                    break
                try:
                    order = await _arerank_order(stage, query, of_stage, order, deadline)
                except GivenUpError:
                    raise
                except Exception as error:
                    order = self._stopped(order, stage, error)
                    span.set(stopped_at=stage.name)
                    break
            return span.ranked([candidates[0]], [order[: self._top_n]])[0]

    def _order_given(self, query: str, candidates: Sequence[Sequence[Candidate]]) -> list[Ranked]:
        """Return the order before the first stage, after all checks."""
        require_query(query)
        counts = [len(of_stage) for of_stage in candidates]
        if len(set(counts)) != 1 or len(counts) != len(self._stages):
            raise InvalidInputError(
                f"lists of {counts} candidates for {len(self._stages)} stages; expected the same candidates for each"
            )
        # The same as in `Reranker`, so that the order before the first stage has no candidate twice either.
        places = sorted({place for of_stage in candidates for place in distinct_positions(of_stage)})
        return [_as_retrieved(place, candidates[0][place]) for place in places]

    def _deadline(self) -> float | None:
        return None if self._time_budget is None else time.monotonic() + self._time_budget

    def _stopped(self, order: Sequence[Ranked], stage: Stage, error: Exception) -> list[Ranked]:
        """Return the order so far, with the reason for the end of the cascade at `stage`."""
        stopped: RankingNote = {"rerank_stopped": self._log_stop(stage, error)}
        return [replace(ranked, note={**ranked.note, **stopped}) for ranked in order]

    def _log_stop(self, stage: Stage, error: Exception) -> str:
        """Log why the cascade ends at `stage`, and return it."""
        late = isinstance(error, OutOfTimeError)
        reason = f"the time budget of {self._time_budget:g} s ran out" if late else f"{type(error).__name__}: {error}"
        level = logging.INFO if late else logging.ERROR
        logger.log(level, "reranking stopped at %s: %s", stage.name, reason, exc_info=not late)
        return f"{stage.name}: {reason}"

    def rank_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Ranked]]:
        """Do as `rank` for several queries, one after another, each with the whole time budget."""
        return [self.rank(query, of_query) for query, of_query in zip(queries, candidates, strict=True)]


def require_budget(seconds: float | None) -> float | None:
    """Return `seconds` as a Python float; raise `InvalidInputError` unless it is ``None`` or a number above 0."""
    if seconds is None:
        return None
    if not is_number(seconds) or not 0 < seconds < float("inf"):
        raise InvalidInputError(f"time_budget is {seconds!r}; expected seconds above 0, or None")
    return float(seconds)


def _stage(value: Stage | tuple[str, Reranker]) -> Stage:
    stage = value if isinstance(value, Stage) else Stage(*value) if _is_pair(value) else None
    if stage is None or not isinstance(stage.name, str) or not isinstance(stage.reranker, Reranker):
        raise InvalidInputError(f"a stage is {value!r}; expected a name and a Reranker")
    return Stage(stage.name, stage.reranker)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _as_retrieved(position: int, candidate: Candidate) -> Ranked:
    note = candidate.retrieval_note(position)
    return Ranked(position, note.get("retrieval_score", 0.0), note)


def _rerank_order(
    stage: Stage, query: str, candidates: Sequence[Candidate], order: Sequence[Ranked], deadline: float | None
) -> list[Ranked]:
    """Return `order`, of positions in `candidates`, as `stage` reranks it; raise `OutOfTimeError` at the deadline."""
    chosen = [candidates[ranked.place] for ranked in order]
    if deadline is None:
        reranked = stage.reranker.rank(query, chosen)
    else:
        reranked = within(_seconds_left(deadline), lambda: stage.reranker.rank(query, chosen))
    return [_with_earlier_notes(order[ranked.place], ranked, stage.name) for ranked in reranked]


async def _arerank_order(
    stage: Stage, query: str, candidates: Sequence[Candidate], order: Sequence[Ranked], deadline: float | None
) -> list[Ranked]:
    """Do as `_rerank_order` off the event loop."""
    chosen = [candidates[ranked.place] for ranked in order]
    if deadline is None:
        [reranked] = await stage.reranker.arank_many([query], [chosen])
    else:
        seconds = _seconds_left(deadline)
        [reranked] = await _awithin(seconds, stage.reranker.arank_many([query], [chosen]))
    return [_with_earlier_notes(order[ranked.place], ranked, stage.name) for ranked in reranked]


def _seconds_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise OutOfTimeError("no time was left")
    return left


async def _awithin(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, or cancel it after so many seconds and raise `OutOfTimeError`."""
    task = asyncio.ensure_future(work)
    try:
        # Not `asyncio.wait_for`, which before Python 3.12 may ignore that its own task is cancelled.
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise OutOfTimeError(f"not done within {seconds:.3f} s")
        return task.result()
    finally:
        task.cancel()


def _with_earlier_notes(before: Ranked, after: Ranked, stage: str) -> Ranked:
    """Return `after` at its position among all candidates, with its first score and rank and every stage's score."""
    # A stage notes the rank of the stage before it, but users expect the retriever's rank.
    retrieval = _retrieval_part(before.note)
    scores = {**before.note.get("rerank_scores", {}), stage: after.score}
    note: RankingNote = {**retrieval, **after.note, **retrieval, "rerank_stage": stage, "rerank_scores": scores}
    if "retrieval_score" not in retrieval:
        note.pop("retrieval_score", None)
    return Ranked(before.place, after.score, note)


def _retrieval_part(note: RankingNote) -> RankingNote:
    if "retrieval_score" in note:
        return {"retrieval_score": note["retrieval_score"], "retrieval_rank": note["retrieval_rank"]}
    return {"retrieval_rank": note["retrieval_rank"]}
