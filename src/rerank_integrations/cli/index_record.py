"""The record of what `index` stored from which file of which source, a file ``sources.json`` in the index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from rerank_integrations.errors import IndexFormatError
from rerank_integrations.files.reading import ReadingOptions

_RECORD_NAME = "sources.json"
_RECORD_VERSION = 2

# Digest of a stored passage by its id.
Digests: TypeAlias = dict[str, str]


@dataclass
class FileRecord:
    """The passages of one file.

    Parameters
    ----------
    digests
        Digest of each passage by id.
    fingerprint
        Digest of the file's contents and of how they were read; empty if it is not known.
    """

    digests: Digests
    fingerprint: str = ""


@dataclass
class SourceRecord:
    """The files of one source by name, and the options with which they were read."""

    options: ReadingOptions = field(default_factory=ReadingOptions)
    files: dict[str, FileRecord] = field(default_factory=dict)


# By name of the source: the absolute path of a file or folder that the user named.
Record: TypeAlias = dict[str, SourceRecord]


def digests_by_id(record: Mapping[str, SourceRecord]) -> dict[str, set[str]]:
    """Return the recorded digests of each id, which are several if several files have it."""
    by_id: dict[str, set[str]] = {}
    for file in _files(record):
        for key, value in file.digests.items():
            by_id.setdefault(key, set()).add(value)
    return by_id


def joined(record: Mapping[str, SourceRecord], current: Mapping[str, SourceRecord]) -> Record:
    """Return `record` with the digests of `current` added to it, and no fingerprint for the sources of `current`."""
    result = dict(record)
    for source, sources in current.items():
        recorded = record.get(source, SourceRecord())
        names = {*recorded.files, *sources.files}
        empty = FileRecord({})
        files = {
            name: FileRecord({**recorded.files.get(name, empty).digests, **sources.files.get(name, empty).digests})
            for name in names
        }
        result[source] = SourceRecord(sources.options, files)
    return result


def read_record(index: Path) -> Record:
    """Return the record of the index at `index`, which is empty where there is no index or no record.

    Raises
    ------
    IndexFormatError
        If the record is damaged.
    """
    file = index / _RECORD_NAME
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text("utf-8"))
        version = document["version"]
        if version not in (1, _RECORD_VERSION):
            raise ValueError(f"version is {version!r}; expected {_RECORD_VERSION}")
        parse = _source_of_version_1 if version == 1 else _source
        return {source: parse(value) for source, value in document["sources"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IndexFormatError(
            f"{file} does not say what was indexed from where: {error!r}. Delete it to go on: then no passage is taken "
            "for one of a file that is gone"
        ) from error


def write_record(index: Path, record: Mapping[str, SourceRecord]) -> None:
    """Replace the record of the index at `index`."""
    # The index has one writer, so the temporary file needs no unique name.
    temporary = index / f"{_RECORD_NAME}.part"
    sources = {
        name: {"options": source.options.chosen(), "files": {key: asdict(file) for key, file in source.files.items()}}
        for name, source in record.items()
    }
    temporary.write_text(json.dumps({"version": _RECORD_VERSION, "sources": sources}), "utf-8")
    temporary.replace(index / _RECORD_NAME)


def _files(record: Mapping[str, SourceRecord]) -> Iterator[FileRecord]:
    for source in record.values():
        yield from source.files.values()


def _source(value: Mapping[str, Any]) -> SourceRecord:
    files = {
        name: FileRecord(_digests(file["digests"]), _string(file["fingerprint"]))
        for name, file in value["files"].items()
    }
    return SourceRecord(ReadingOptions(**value["options"]), files)


def _source_of_version_1(value: Mapping[str, Any]) -> SourceRecord:
    # The first version had no options, and nothing about a file but its passages.
    return SourceRecord(files={name: FileRecord(_digests(digests)) for name, digests in value.items()})


def _digests(value: Mapping[str, Any]) -> Digests:
    return {key: _string(digest) for key, digest in value.items()}


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a digest is not a string")
    return value
