"""The record of what the command line put into an index, by which it removes what is gone and nothing else.

It is the file ``sources.json`` in the index's folder, and names each source (a file or a folder, by its absolute path),
the files that were read of it, and the ids and digests of their passages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.storable import metadata_json
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexFormatError

_FILENAME = "sources.json"
_VERSION = 1
# Passages that are read from the index at once.
_BATCH = 1000

Digests = dict[str, str]
"""By passage's id."""
ByFile = dict[str, Digests]
"""By the name of a file within its source."""


def digest(passage: Passage) -> str:
    """Return a digest of a passage's text and metadata.

    Raises
    ------
    InvalidInputError
        If an index cannot store the passage.
    """
    stored = f"{metadata_json(passage)}\0{passage.text}"
    return hashlib.sha256(stored.encode()).hexdigest()[:32]


def stored_digests(index: ColBERTIndex, ids: Iterable[str]) -> Digests:
    """Return the digest of each passage that `index` holds, of those with these ids."""
    wanted = list(ids)
    return {
        passage.id: digest(passage)
        for start in range(0, len(wanted), _BATCH)
        for passage in index.get(wanted[start : start + _BATCH])
    }


def read_record(index: Path) -> dict[str, ByFile]:
    """Read what the index at `index` holds of each source; nothing where there is no index or no record.

    Raises
    ------
    IndexFormatError
        If the record is damaged.
    """
    file = index / _FILENAME
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text("utf-8"))
        if document["version"] != _VERSION:
            raise ValueError(f"version is {document['version']!r}; expected {_VERSION}")
        return {source: _checked(files) for source, files in document["sources"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IndexFormatError(
            f"{file} does not say what was indexed from where: {error!r}. Delete it to go on: then no passage is taken "
            "for one of a file that is gone"
        ) from error


def write_record(index: Path, record: Mapping[str, ByFile]) -> None:
    """Replace the record of the index at `index`."""
    # One name will do: the index has one writer.
    temporary = index / f"{_FILENAME}.part"
    temporary.write_text(json.dumps({"version": _VERSION, "sources": record}), "utf-8")
    temporary.replace(index / _FILENAME)


def _checked(files: ByFile) -> ByFile:
    for digests in files.values():
        if not all(isinstance(value, str) for value in digests.values()):
            raise TypeError("a digest is not a string")
    return files
