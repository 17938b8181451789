"""What the catalog says of the folders of vectors: records of segments and codecs, checked as they are read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from rerank_integrations.core.index.arrays import Checksums
from rerank_integrations.errors import IndexFormatError

_FLOAT_ARRAYS = frozenset({"lengths", "tokens"})
_CODE_ARRAYS = frozenset({"lengths", "codes", "residuals", "scales"})
_LISTED_ARRAYS = _CODE_ARRAYS | {"list_starts", "listed"}
_CODEC_ARRAYS = frozenset({"centroids", "codebook", "rotation"})


@dataclass(frozen=True)
class SegmentRecord:
    """What the catalog says of a segment; `codec` is ``None`` for float16 vectors."""

    name: str
    passages: int
    tokens: int
    codec: str | None
    checksums: Checksums


@dataclass(frozen=True)
class CodecRecord:
    """What the catalog says of a codec."""

    name: str
    tokens: int
    centroids: int
    step: float
    whole: bool
    checksums: Checksums


def segment_record(name: Any, passages: Any, tokens: Any, codec: Any, checksums: Any) -> SegmentRecord:
    """Return what these columns say of a segment.

    Raises
    ------
    IndexFormatError
        If they are damaged.
    """
    numbers = type(passages) is int and type(tokens) is int and 0 <= passages < 1 << 31 and 0 <= tokens < 1 << 48
    if not _is_folder_name(name) or not numbers or not (codec is None or _is_folder_name(codec)):
        raise IndexFormatError(f"what the catalog says of the segment {name!r} is damaged")
    wanted = (_FLOAT_ARRAYS,) if codec is None else (_CODE_ARRAYS, _LISTED_ARRAYS)
    return SegmentRecord(name, passages, tokens, codec, _parsed_checksums(name, checksums, *wanted))


def codec_record(name: Any, tokens: Any, centroids: Any, step: Any, whole: Any, checksums: Any) -> CodecRecord:
    """Return what these columns say of a codec.

    Raises
    ------
    IndexFormatError
        If they are damaged.
    """
    numbers = type(tokens) is int and type(centroids) is int and type(step) is float and whole in (0, 1)
    if not _is_folder_name(name) or not numbers or tokens < 0:
        raise IndexFormatError(f"what the catalog says of the codec {name!r} is damaged")
    return CodecRecord(name, tokens, centroids, step, bool(whole), _parsed_checksums(name, checksums, _CODEC_ARRAYS))


def _is_folder_name(name: object) -> bool:
    """Return whether this is a name as `write_arrays` makes them; any other could lead out of the index's folder."""
    return isinstance(name, str) and re.fullmatch("[0-9a-f]{32}", name) is not None


def _parsed_checksums(name: str, stored: object, *wanted: frozenset[str]) -> Checksums:
    """Return the checksums of a folder's arrays, which must be one of the sets `wanted`.

    Raises
    ------
    IndexFormatError
        If they are not.
    """
    try:
        found = json.loads(stored) if isinstance(stored, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.keys() not in wanted:
        raise IndexFormatError(f"the checksums that the catalog has for the arrays of {name} are damaged")
    if not all(type(value) is int and 0 <= value < 1 << 32 for value in found.values()):
        raise IndexFormatError(f"the checksums that the catalog has for the arrays of {name} are no CRC-32")
    return found
