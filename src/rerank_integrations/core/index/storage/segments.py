"""The vectors that a search sees: open segments, which of their passages are alive, and which codec made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.forks import cached_property
from rerank_integrations.core.index.storage.codecs import Codec, Codes, Scales
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
    """An open segment of compressed vectors: memory-mapped arrays, as of `codecs.Codes`.

    Parameters
    ----------
    codec
        The name of the codec that made it.
    offsets
        As in a `FloatSegment`.
    list_starts, listed
        Inverted lists: centroid ``c`` occurs in the passages ``listed[list_starts[c]:list_starts[c + 1]]``. ``None``
        for a small segment, whose passages are all candidates.
    """

    name: str
    codec: str
    codes: NDArray[np.uint16]
    residuals: NDArray[np.uint8]
    scales: Scales
    offsets: NDArray[np.int64]
    list_starts: NDArray[np.int32] | None
    listed: NDArray[np.uint16 | np.uint32] | None

    def passage(self, ordinal: int) -> Codes:
        """Return the codes of one passage's tokens."""
        rows = slice(int(self.offsets[ordinal]), int(self.offsets[ordinal + 1]))
        return Codes(np.asarray(self.codes[rows]), np.asarray(self.residuals[rows]), np.asarray(self.scales[rows]))


Segment = FloatSegment | PlaidSegment

S = TypeVar("S", FloatSegment, PlaidSegment)
Ordinals: TypeAlias = NDArray[np.int32]

DEAD = -1


@dataclass(frozen=True, eq=False)
class Part(Generic[S]):
    """The passages of one segment that a search may return.

    Parameters
    ----------
    pids
        The catalog number of each passage of the segment, `DEAD` for replaced and deleted ones; int64.
    ordinals
        The ordinals of the passages that may be returned, rising; int32.
    tokens
        How many tokens these have.
    """

    segment: S
    pids: NDArray[np.int64]
    ordinals: Ordinals
    tokens: int


@dataclass(frozen=True, eq=False)
class Group:
    """The segments that one codec made."""

    codec: Codec
    parts: tuple[Part[PlaidSegment], ...]

    @cached_property
    def searchable(self) -> int:
        """Count the passages that a search may return."""
        return sum(len(part.ordinals) for part in self.parts)

    @cached_property
    def searchable_tokens(self) -> int:
        """Count the tokens of the passages that a search may return."""
        return sum(part.tokens for part in self.parts)

    @cached_property
    def passages(self) -> int:
        """Count the passages in the segments, dead ones included."""
        return sum(len(part.segment.offsets) - 1 for part in self.parts)

    @cached_property
    def tokens(self) -> int:
        """Count the tokens of all passages in the segments."""
        return sum(int(part.segment.offsets[-1]) for part in self.parts)


@dataclass(frozen=True, eq=False)
class Selection:
    """The passages of a snapshot that a search may return."""

    floats: tuple[Part[FloatSegment], ...]
    groups: tuple[Group, ...]
