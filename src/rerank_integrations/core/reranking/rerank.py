"""The function `rerank`: passages in, hits out, without a framework."""

from __future__ import annotations

from collections.abc import Iterable

from rerank_integrations.core.models import CrossEncoderModel
from rerank_integrations.core.ranking import require_cut
from rerank_integrations.core.reranking.calibration import Calibration
from rerank_integrations.core.reranking.candidates import Candidate, Ranked
from rerank_integrations.core.reranking.cascade import Cascade
from rerank_integrations.core.reranking.options import RerankOptions
from rerank_integrations.core.reranking.reranker import Reranker, as_candidate_scorer
from rerank_integrations.core.reranking.scorers import CandidateScorer
from rerank_integrations.core.types import Hit, ListwiseScorer, Passage, PassageLike, Scorer, iter_passages, to_passage
from rerank_integrations.errors import InvalidInputError


def rerank(
    query: str,
    passages: Iterable[PassageLike],
    scorer: Scorer | ListwiseScorer | CandidateScorer | Cascade,
    *,
    top_n: int | None = None,
    threshold: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    strict: bool = False,
    instruction: str | None = None,
    calibration: Calibration | None = None,
) -> list[Hit]:
    """Score `passages` against `query` and return them best first, as new `Hit`s.

    Parameters
    ----------
    query
        Must contain more than white space.
    passages
        Strings, mappings, `Passage`s or `Hit`s; they are not changed.
    scorer
        A `ColBERTModel`, a `CrossEncoderModel`, a `ColBERTScorer` (which scores an index's passages from their stored
        vectors), a `Cascade`, a `ListwiseScorer`, or anything with ``score(query, texts)``.
    top_n
        How many to keep; ``None`` keeps all.
    threshold
        Keep only scores of at least this (inclusive); not with a `Cascade`, whose stages differ in scale.
    window, stride
        In tokens, for one of the two models: a longer text is scored by overlapping windows, and the best one counts.
    strict
        Whether a text that would be cut is an error.
    instruction
        For this query, with a `CrossEncoderModel` of a language model: what makes a text relevant, in place of the
        model's own instruction.
    calibration
        From `fit_calibration`, of the same scorer: scores and `threshold` are probabilities then.

    Returns
    -------
    list of Hit
        Best first. Passages of equal score keep the order given. Of passages with the same id and text only the first
        is scored and returned; the id of a plain string is made from its text. ``note`` says how each was scored.

    Raises
    ------
    InvalidInputError
        For an empty query, a negative `top_n`, a score that is not a number, or `strict` with a scorer that does not
        report what it cuts, or an `instruction` with a scorer that does not read one.
    TextTooLongError
        If `strict`, for a text that the model would cut.
    """
    items = list(iter_passages(passages))
    converted = [to_passage(item) for item in items]
    candidates = [_candidate(item, passage) for item, passage in zip(items, converted, strict=True)]
    if instruction is not None:
        if not isinstance(scorer, CrossEncoderModel):
            raise InvalidInputError(
                f"instruction is {instruction!r} with a scorer of type {type(scorer).__name__}; "
                "expected a CrossEncoderModel"
            )
        scorer = scorer.with_instruction(instruction)
    if isinstance(scorer, Cascade):
        if any(option is not None for option in (threshold, window, stride, calibration)) or strict:
            raise InvalidInputError(
                "threshold, window, stride, calibration or strict with a Cascade; expected them in its stages"
            )
        top_n, _ = require_cut(top_n, None)
        ranked = scorer.rank(query, candidates)[:top_n]
    else:
        options = RerankOptions(
            top_n=top_n, threshold=threshold, window=window, stride=stride, strict=strict, calibration=calibration
        )
        ready = as_candidate_scorer(scorer, window=window, stride=stride)
        ranked = Reranker.with_options(ready, options).rank(query, candidates)
    return [_hit(converted[candidate.place], candidate, rank) for rank, candidate in enumerate(ranked, start=1)]


def _candidate(item: PassageLike, passage: Passage) -> Candidate:
    return Candidate(passage.id, passage.text, item.score if isinstance(item, Hit) else None)


def _hit(passage: Passage, ranked: Ranked, rank: int) -> Hit:
    return Hit(passage.id, ranked.score, rank, passage.text, dict(passage.metadata), ranked.note)
