"""Lengths of texts in a model's tokens, cached because the same texts are reranked often; the errors of strict mode."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, cast

from rerank_integrations.core.concurrency.forks import cached_property, forks_held_off
from rerank_integrations.core.reranking.candidates import Candidate
from rerank_integrations.core.reranking.windows import Span
from rerank_integrations.errors import InvalidInputError, TextTooLongError

# Numbers alone: a few megabytes at most.
_MAX_CACHED_COUNTS = 1 << 15
_MAX_NAMED_TEXTS = 3
_TOKENIZER_METHODS = ("cuts_queries", "document_limit", "token_counts", "token_spans")


class TokenizingModel(Protocol):
    """Protocol of a model that reports its tokens, as a `ColBERTModel` does."""

    def options(self) -> Mapping[str, object]:
        """Return the constructor arguments; ``document_length`` among them, unless it is the checkpoint's own."""
        ...

    def document_limit(self, length: int | None = None) -> int:
        """Return how many tokens of a document are read with that ``document_length``, markers included."""
        ...

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, markers included."""
        ...

    def token_spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """Return the character span of each token of each text."""
        ...

    def cuts_queries(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each query, whether only its beginning is read."""
        ...


def as_tokenizing_model(model: object) -> TokenizingModel | None:
    """Return `model` if it reports its tokens, else ``None``."""
    # By name: isinstance with a protocol would read the model's properties, which loads it.
    reports = all(callable(getattr(model, name, None)) for name in _TOKENIZER_METHODS)
    return cast("TokenizingModel", model) if reports else None


class Lengths:
    """Lengths of texts in a model's tokens, cached by the text's hash; any number of threads may use it."""

    def __init__(self, model: TokenizingModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._counts: OrderedDict[int, int] = OrderedDict()

    @property
    def limit(self) -> int:
        """The number of tokens of a document that the model reads, markers included."""
        return self.limit_of(self._model.options().get("document_length"))

    def limit_of(self, length: object) -> int:
        """Return how many tokens of a document are read with that ``document_length``; ``None``: the checkpoint's."""
        return int(self._model.document_limit(cast("int | None", length)))

    @cached_property
    def markers(self) -> int:
        """Return how many tokens a document has beside those of its text."""
        return int(self._model.token_counts([""])[0])

    def longer(self, texts: Iterable[str], limit: int) -> set[str]:
        """Return the texts that have more than `limit` tokens, markers included."""
        # No tokenizer makes more tokens of ASCII than it has characters; others may unfold a letter into a phrase.
        unsure = [text for text in dict.fromkeys(texts) if not text.isascii() or len(text) + self.markers + 1 > limit]
        return {text for text, count in self._counted(unsure).items() if count > limit}

    def cut(self, texts: Iterable[str]) -> set[str]:
        """Return the texts of which the model reads only the beginning."""
        return self.longer(texts, self.limit)

    def cut_queries(self, queries: Sequence[str]) -> list[bool]:
        """Return, for each query, whether the model reads only its beginning."""
        return self._model.cuts_queries(queries)

    def _counted(self, texts: Sequence[str]) -> dict[str, int]:
        with forks_held_off(), self._lock:
            known = {text: self._counts[hash(text)] for text in texts if hash(text) in self._counts}
        missing = [text for text in texts if text not in known]
        fresh = dict(zip(missing, self._model.token_counts(missing), strict=True)) if missing else {}
        with forks_held_off(), self._lock:
            self._counts.update({hash(text): count for text, count in fresh.items()})
            while len(self._counts) > _MAX_CACHED_COUNTS:
                self._counts.popitem(last=False)
        return known | fresh


def strict_refused(scorer: object) -> InvalidInputError:
    """Return the error for a strict reranking by `scorer`, which does not report what it cuts."""
    return InvalidInputError(
        f"strict is True with a scorer of type {type(scorer).__name__}, which does not say what it cuts; "
        "expected a ColBERTModel or a CrossEncoderModel"
    )


def require_none_cut(candidates: Sequence[tuple[Candidate, bool]], remedies: Sequence[str]) -> None:
    """Raise `TextTooLongError` if a candidate would be cut, with the candidates' names and what helps.

    Parameters
    ----------
    candidates
        Each candidate, with whether it would be cut.
    remedies
        What helps beside splitting the texts.
    """
    cut = [(number, candidate) for number, (candidate, is_cut) in enumerate(candidates) if is_cut]
    if not cut:
        return
    named = ", ".join(
        f"number {number}" + (f" ({candidate.id!r})" if candidate.id else "")
        for number, candidate in cut[:_MAX_NAMED_TEXTS]
    )
    more = f" and {len(cut) - _MAX_NAMED_TEXTS} more" if len(cut) > _MAX_NAMED_TEXTS else ""
    raise TextTooLongError(
        f"{len(cut)} of {len(candidates)} texts are longer than the model reads: {named}{more}; "
        f"{', '.join([*remedies, 'or split them'] if remedies else ['split them'])} (strict is True)"
    )
