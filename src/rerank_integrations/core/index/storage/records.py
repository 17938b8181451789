"""Records of segments and codecs: the catalog's rows on folders of vectors, checked as they are read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TypeGuard

from rerank_integrations.core.index.storage.arrays import Checksums
from rerank_integrations.errors import IndexFormatError

_FLOAT_ARRAYS = frozenset({"lengths", "tokens"})
_CODE_ARRAYS = frozenset({"lengths", "codes", "residuals", "scales"})
_LISTED_ARRAYS = _CODE_ARRAYS | {"list_starts", "listed"}
_CODEC_ARRAYS = frozenset({"centroids", "codebook", "rotation"})


@dataclass(frozen=True)
class SegmentRecord:
    """A segment as the catalog names it; `codec` is ``None`` for float16 vectors."""

    name: str
    passages: int
    tokens: int
    codec: str | None
    checksums: Checksums


@dataclass(frozen=True)
class CodecRecord:
    """A codec as the catalog names it."""

    name: str
    tokens: int
    centroids: int
    step: float
    whole: bool
    checksums: Checksums


def segment_record(name: object, passages: object, tokens: object, codec: object, checksums: object) -> SegmentRecord:
    """Return the record of a segment from its columns.

    Raises
    ------
    IndexFormatError
        If they are damaged.
    """
    if (
        not _is_folder_name(name)
        or not _is_count(passages, bits=31)
        or not _is_count(tokens, bits=48)
        or not (codec is None or _is_folder_name(codec))
    ):
        raise IndexFormatError(f"what the catalog says of the segment {name!r} is damaged")
    expected = (_FLOAT_ARRAYS,) if codec is None else (_CODE_ARRAYS, _LISTED_ARRAYS)
    return SegmentRecord(name, passages, tokens, codec, _parsed_checksums(name, checksums, *expected))


def codec_record(
    name: object, tokens: object, centroids: object, step: object, whole: object, checksums: object
) -> CodecRecord:
    """Return the record of a codec from its columns.

    Raises
    ------
    IndexFormatError
        If they are damaged.
    """
    if (
        not _is_folder_name(name)
        or not _is_count(tokens, bits=63)
        or not _is_count(centroids, bits=63)
        or type(step) is not float
        or whole not in (0, 1)
    ):
        raise IndexFormatError(f"what the catalog says of the codec {name!r} is damaged")
    return CodecRecord(name, tokens, centroids, step, bool(whole), _parsed_checksums(name, checksums, _CODEC_ARRAYS))


def _is_folder_name(name: object) -> TypeGuard[str]:
    """Return whether this is a name as `write_arrays` makes them; any other could lead out of the index's folder."""
    return isinstance(name, str) and re.fullmatch("[0-9a-f]{32}", name) is not None


def _is_count(value: object, *, bits: int) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << bits


def _parsed_checksums(name: str, stored: object, *expected: frozenset[str]) -> Checksums:
    """Return the checksums of a folder's arrays, whose names must be one of the sets `expected`.

    Raises
    ------
    IndexFormatError
        If they are not.
    """
    try:
        checksums = json.loads(stored) if isinstance(stored, str) else None
    except (ValueError, RecursionError):
        checksums = None
    if not isinstance(checksums, dict) or checksums.keys() not in expected:
        raise IndexFormatError(f"the checksums that the catalog has for the arrays of {name} are damaged")
    if not all(type(value) is int and 0 <= value < 1 << 32 for value in checksums.values()):
        raise IndexFormatError(f"the checksums that the catalog has for the arrays of {name} are no CRC-32")
    return checksums
