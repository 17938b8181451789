"""Warnings about what a model does with texts, shown where the user's own code called."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rerank_integrations.errors import TruncationWarning

# Of this package, and what its context managers run through.
_INSIDE = (str(Path(__file__).parents[2]) + os.sep, contextlib.__file__)


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn as of the innermost line that is outside this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


# So many tokens a tokenizer takes as a limit that is none.
UNLIMITED = 2**31 - 1


def length_remedy(name: str, limit: int, most: int, otherwise: str) -> str:
    """Return what helps against texts that are cut to `limit` tokens, where the model can read `most`.

    Parameters
    ----------
    name
        The argument that sets the limit.
    otherwise
        What helps in any case.
    """
    if most >= UNLIMITED:
        return f"raise {name}, or {otherwise}"
    if limit < most:
        return f"raise {name} (this model reads up to {most} tokens), or {otherwise}"
    return f"this model reads no more than {most}: {otherwise}"


class TruncationNotice:
    """Warns the first time that a model cuts texts of a kind, with the counts of that call."""

    def __init__(self) -> None:
        self._said: dict[str, object] = {}

    def check(self, kind: str, lengths: Sequence[int], limit: int, remedy: str) -> None:
        """Warn (`TruncationWarning`) if some of `lengths` (tokens) exceed `limit`, once a `kind`."""
        cut = [length for length in lengths if length > limit]
        if not cut:
            return
        # One step of the interpreter's, so that no thread comes between, and nothing is locked where a process forks.
        turn = object()
        if self._said.setdefault(kind, turn) is not turn:
            return
        warn_user(
            f"{len(cut)} of {len(lengths)} {kind} were cut to {limit} tokens (the longest has {max(cut)}); {remedy}",
            TruncationWarning,
        )
