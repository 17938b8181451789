"""Several rerankers, each over the best of the one before it, within a time budget.

After "Document Ranking with a Pretrained Sequence-to-Sequence Model"'s multi-stage pipelines (Nogueira et al., 2019,
arXiv:1910.14424): what is cheap ranks many, what is dear ranks the best few.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rerank_integrations.core.cancel import within
from rerank_integrations.core.rerank import require_count
from rerank_integrations.core.reranking.candidates import Candidate, Ranked
from rerank_integrations.core.reranking.reranker import Reranker, require_query
from rerank_integrations.errors import InvalidInputError

logger = logging.getLogger(__name__)


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
        How many to keep in the end; ``None`` keeps what the last stage keeps.
    time_budget
        Seconds for one query; ``None`` for no limit. When it runs out, or when a stage fails, the order of the stage
        before it comes back (before the first: the order given), and every note says so under ``rerank_stopped``.
    """

    def __init__(
        self,
        stages: Sequence[Stage | tuple[str, Reranker]],
        *,
        top_n: int | None = None,
        time_budget: float | None = None,
    ) -> None:
        self._stages = [stage if isinstance(stage, Stage) else Stage(*stage) for stage in stages]
        if not self._stages:
            raise InvalidInputError("a cascade of no stages; expected at least one")
        if top_n is not None:
            require_count(top_n, "top_n")
        require_budget(time_budget)
        self._top_n = top_n
        self._time_budget = time_budget

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
        deadline = None if self._time_budget is None else time.monotonic() + self._time_budget
        order = [Ranked(place, _given_score(one), _start(one, place)) for place, one in enumerate(candidates[0])]
        for stage, given in zip(self._stages, candidates, strict=True):
            if not order:
                break
            try:
                order = _next(stage, query, given, order, deadline)
            except Exception as error:
                # Whatever it is: an answer in the order that is at hand is worth more than none.
                stopped = f"{stage.name}: {_said(error, self._time_budget)}"
                log = logger.info if isinstance(error, TimeoutError) else logger.exception
                log("reranking stopped at %s", stopped)
                order = [replace(one, note={**one.note, "rerank_stopped": stopped}) for one in order]
                break
        return order[: self._top_n]

    def rank_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Ranked]]:
        """Do as `rank` for several queries, one after another, each with the whole time budget."""
        return [self.rank(query, given) for query, given in zip(queries, candidates, strict=True)]


def numbered_stages(components: Sequence[Any], kind: type[Any]) -> list[Stage]:
    """Return the stages that a framework's components stand for, under names that differ.

    Raises
    ------
    InvalidInputError
        If one of them is not of `kind`, a reranker of one stage.
    """
    named: list[Stage] = []
    for component in components:
        if not isinstance(component, kind):
            raise InvalidInputError(
                f"a stage is of type {type(component).__name__}; expected ColBERTRerank or CrossEncoderRerank"
            )
        name = type(component).__name__
        count = sum(stage.name.split()[0] == name for stage in named)
        named.append(Stage(f"{name} {count + 1}" if count else name, component._reranker()))
    return named


def require_budget(seconds: float | None) -> None:
    """Raise `InvalidInputError` unless `seconds` is ``None`` or a number above 0."""
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0 or math.isinf(seconds):
        raise InvalidInputError(f"time_budget is {seconds!r}; expected seconds above 0, or None")


def _next(
    stage: Stage, query: str, candidates: Sequence[Candidate], order: Sequence[Ranked], deadline: float | None
) -> list[Ranked]:
    chosen = [candidates[one.place] for one in order]
    work: Callable[[], list[Ranked]] = lambda: stage.reranker.rank(query, chosen)  # noqa: E731
    if deadline is None:
        ranked = work()
    else:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        ranked = within(left, work)
    return [_joined(order[one.place], one, stage.name) for one in ranked]


def _joined(before: Ranked, after: Ranked, stage: str) -> Ranked:
    """Return where and how `after` stands, with what its retriever gave it and the scores of all stages."""
    first = {key: before.note[key] for key in ("retrieval_score", "retrieval_rank") if key in before.note}
    scores = {**before.note.get("rerank_scores", {}), stage: after.score}
    note = {key: value for key, value in after.note.items() if key not in ("retrieval_score", "retrieval_rank")}
    return Ranked(before.place, after.score, {**first, **note, "rerank_stage": stage, "rerank_scores": scores})


def _start(candidate: Candidate, place: int) -> dict[str, Any]:
    score = {} if candidate.score is None else {"retrieval_score": float(candidate.score)}
    return {**score, "retrieval_rank": place + 1}


def _given_score(candidate: Candidate) -> float:
    return 0.0 if candidate.score is None else float(candidate.score)


def _said(error: Exception, budget: float | None) -> str:
    if isinstance(error, TimeoutError) and budget is not None:
        return f"the time budget of {budget:g} s ran out"
    return f"{type(error).__name__}: {error}"
