"""The vectors that a search sees: open segments, which of their passages are alive, and which codec made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.forks import cached_property
from rerank_integrations.core.index.codecs import Codec
from rerank_integrations.core.maxsim import Floats


@dataclass(frozen=True, eq=False)
class FloatSegment:
    """An open segment of float16 vectors.

    Parameters
    ----------
    tokens
        Memory-mapped float16, *Shape:* (tokens, dim).
    offsets
        Int64, *Shape:* (passages + 1,); passage ``i`` has the tokens ``offsets[i]:offsets[i + 1]``.
    """

    name: str
    tokens: NDArray[np.float16]
    offsets: NDArray[np.int64]

    def vectors(self, ordinal: int) -> Floats:
        """Return one passage's token vectors, float32, *Shape:* (tokens, dim)."""
        start, end = self.offsets[ordinal], self.offsets[ordinal + 1]
        return np.asarray(self.tokens[start:end], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class PlaidSegment:
    """An open segment of compressed vectors: memory-mapped arrays, see `codecs.Codes`.

    Parameters
    ----------
    codec
        The name of the codec that made it.
    offsets
        As of a `FloatSegment`.
    list_starts, listed
        Inverted lists: centroid ``c`` occurs in the passages ``listed[list_starts[c]:list_starts[c + 1]]``. ``None``
        for a small segment, of which every passage is a candidate.
    """

    name: str
    codec: str
    codes: NDArray[np.uint16]
    residuals: NDArray[np.uint8]
    scales: NDArray[Any]
    offsets: NDArray[np.int64]
    list_starts: NDArray[np.int32] | None
    listed: NDArray[Any] | None


Segment = FloatSegment | PlaidSegment

S = TypeVar("S", FloatSegment, PlaidSegment)
Places: TypeAlias = NDArray[np.int32]

DEAD = -1


@dataclass(frozen=True, eq=False)
class Part(Generic[S]):
    """Passages of one segment that may be found.

    Parameters
    ----------
    pids
        The catalog number of each passage of the segment, `DEAD` for replaced and deleted ones; int64.
    places
        The ordinals of those that may be found, rising; int32.
    tokens
        How many tokens those have.
    """

    segment: S
    pids: NDArray[np.int64]
    places: Places
    tokens: int


@dataclass(frozen=True, eq=False)
class Group:
    """The segments that one codec made."""

    codec: Codec
    parts: tuple[Part[PlaidSegment], ...]

    @cached_property
    def found(self) -> int:
        """How many passages may be found."""
        return sum(len(part.places) for part in self.parts)

    @cached_property
    def found_tokens(self) -> int:
        """How many tokens those have."""
        return sum(part.tokens for part in self.parts)

    @cached_property
    def passages(self) -> int:
        """How many passages the segments hold, dead ones too."""
        return sum(len(part.segment.offsets) - 1 for part in self.parts)

    @cached_property
    def tokens(self) -> int:
        """How many tokens those have."""
        return sum(int(part.segment.offsets[-1]) for part in self.parts)


@dataclass(frozen=True, eq=False)
class Selection:
    """What may be found of a snapshot."""

    floats: tuple[Part[FloatSegment], ...]
    groups: tuple[Group, ...]
