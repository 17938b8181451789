"""Which texts are longer than a model reads; asked often of the same texts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from rerank_integrations.core.reranking.candidates import Candidate
from rerank_integrations.errors import TextTooLongError

# Numbers alone: a few megabytes at most.
_REMEMBERED = 1 << 15
_NAMED = 3


class Lengths:
    """Remembers how many tokens a text has, by its hash; any number of threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: OrderedDict[int, int] = OrderedDict()

    def longer(self, model: Any, texts: Iterable[str], length: int | None) -> set[str]:
        """Return the texts that have more tokens than `model` reads of a document of `length` (``None``: its own)."""
        unique = list(dict.fromkeys(texts))
        if not unique:
            return set()
        limit = model.document_limit(length)
        return {text for text, count in self._counted(model, unique, limit).items() if count > limit}

    def _counted(self, model: Any, texts: Sequence[str], limit: int) -> dict[str, int]:
        # No tokenizer makes more tokens than there are bytes, but for its few markers.
        known = {text: 0 for text in texts if 4 * len(text) + 16 <= limit}
        with self._lock:
            known.update({text: self._counts[hash(text)] for text in texts if hash(text) in self._counts})
        missing = [text for text in texts if text not in known]
        fresh = dict(zip(missing, model.token_counts(missing), strict=True)) if missing else {}
        with self._lock:
            self._counts.update({hash(text): count for text, count in fresh.items()})
            while len(self._counts) > _REMEMBERED:
                self._counts.popitem(last=False)
        return known | fresh


def require_none_cut(candidates: Sequence[tuple[Candidate, bool]], remedy: str) -> None:
    """Raise `TextTooLongError`, naming the candidates of which it is said that they would be cut."""
    cut = [(number, one) for number, (one, is_cut) in enumerate(candidates) if is_cut]
    if not cut:
        return
    named = ", ".join(f"number {number}" + (f" ({one.id!r})" if one.id else "") for number, one in cut[:_NAMED])
    more = f" and {len(cut) - _NAMED} more" if len(cut) > _NAMED else ""
    raise TextTooLongError(
        f"{len(cut)} of {len(candidates)} texts are longer than the model reads: {named}{more}; "
        f"give a window, raise {remedy}, or split them (strict is True)"
    )
