"""Which texts are longer than a model reads; asked often of the same texts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from rerank_integrations.core.concurrency.forks import cached_property, forks_held_off
from rerank_integrations.core.reranking.candidates import Candidate
from rerank_integrations.errors import InvalidInputError, TextTooLongError

# Numbers alone: a few megabytes at most.
_REMEMBERED = 1 << 15
_NAMED = 3
_ASKED = ("cuts_queries", "document_limit", "token_counts", "token_spans")


class Lengths:
    """The lengths of texts in tokens of one model, remembered by the text's hash; any number of threads may use it.

    Parameters
    ----------
    model
        A `ColBERTModel`. Of an encoder of another kind, which may not tell its tokens, `told` is false, and no text is
        known to be cut.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._counts: OrderedDict[int, int] = OrderedDict()
        # By name: asking a protocol would read the model's properties, which load it.
        self.told = all(callable(getattr(model, name, None)) for name in _ASKED)

    @property
    def limit(self) -> int:
        """How many tokens of a document the model reads, markers included."""
        return self.limit_of(self._model.options().get("document_length"))

    def limit_of(self, length: int | None) -> int:
        """Return how many tokens of a document a model of that ``document_length`` reads; ``None``: as it comes."""
        return int(self._model.document_limit(length))

    @cached_property
    def markers(self) -> int:
        """How many tokens a document has beside those of its text."""
        return int(self._model.token_counts([""])[0])

    def longer(self, texts: Iterable[str], limit: int) -> set[str]:
        """Return the texts that have more than `limit` tokens, markers included."""
        # No tokenizer makes more tokens of ASCII than it has characters; others may unfold a letter into a phrase.
        unsure = [text for text in dict.fromkeys(texts) if not text.isascii() or len(text) + self.markers + 1 > limit]
        return {text for text, count in self._counted(unsure).items() if count > limit}

    def cut(self, texts: Iterable[str]) -> set[str]:
        """Return the texts of which the model reads the beginning only."""
        return self.longer(texts, self.limit) if self.told else set()

    def cut_queries(self, queries: Sequence[str]) -> list[bool]:
        """Return, for each query, whether the model reads its beginning only."""
        return self._model.cuts_queries(queries) if self.told else [False] * len(queries)

    def _counted(self, texts: Sequence[str]) -> dict[str, int]:
        with forks_held_off(), self._lock:
            known = {text: self._counts[hash(text)] for text in texts if hash(text) in self._counts}
        missing = [text for text in texts if text not in known]
        fresh = dict(zip(missing, self._model.token_counts(missing), strict=True)) if missing else {}
        with forks_held_off(), self._lock:
            self._counts.update({hash(text): count for text, count in fresh.items()})
            while len(self._counts) > _REMEMBERED:
                self._counts.popitem(last=False)
        return known | fresh


def strict_refused(scorer: Any) -> InvalidInputError:
    """Return the error for a strict reranking by `scorer`, which does not say what it cuts."""
    return InvalidInputError(
        f"strict is True with a scorer of type {type(scorer).__name__}, which does not say what it cuts; "
        "expected a ColBERTModel or a CrossEncoderModel"
    )


def require_none_cut(candidates: Sequence[tuple[Candidate, bool]], remedies: Sequence[str]) -> None:
    """Raise `TextTooLongError`, naming the candidates of which it is said that they would be cut, and what helps."""
    cut = [(number, one) for number, (one, is_cut) in enumerate(candidates) if is_cut]
    if not cut:
        return
    named = ", ".join(f"number {number}" + (f" ({one.id!r})" if one.id else "") for number, one in cut[:_NAMED])
    more = f" and {len(cut) - _NAMED} more" if len(cut) > _NAMED else ""
    raise TextTooLongError(
        f"{len(cut)} of {len(candidates)} texts are longer than the model reads: {named}{more}; "
        f"{', '.join([*remedies, 'or split them'] if remedies else ['split them'])} (strict is True)"
    )
