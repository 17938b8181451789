"""Files that clients send, as passages: read by `rerank_integrations.files` from a temporary copy."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import itertools
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.types import Passage, TokenEncoder
from rerank_integrations.errors import IndexReadOnlyError, InvalidInputError, MissingExtraError
from rerank_integrations.files.reading import ReadingOptions, read_passages, splitter_factory
from rerank_integrations.files.sources import find_files, readable_suffixes
from rerank_integrations.server.service import Service

# Files that are read at a time: a reader cannot be interrupted, and searches need the other threads.
_MAX_READING = 2
# Nor characters that change the direction of the text after them, which make a name look like another.
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\\u202a-\u202e\u2066-\u2069\ud800-\udfff]{1,200}")
# What the readers of these formats import.
_MODULES = {
    ".pdf": ("pypdf",),
    ".docx": ("mammoth", "bs4", "markdownify"),
    ".html": ("bs4", "markdownify"),
    ".htm": ("bs4", "markdownify"),
}


@functools.cache
def accepted_suffixes() -> tuple[str, ...]:
    """Return the suffixes of the files that can be read here; the extra ``[files]`` adds some.

    Compressed files are not among them: a small body must not become a huge text.
    """
    extra = all(importlib.util.find_spec(module) for modules in _MODULES.values() for module in modules)
    return tuple(suffix for suffix in readable_suffixes() if extra or suffix not in _MODULES)


def read_upload(name: str, data: bytes, model: TokenEncoder, max_passages: int) -> list[Passage]:
    """Return the passages of a file, at most one more than `max_passages`.

    Parameters
    ----------
    name
        The file's name without folders; it is part of the ids, and ``source`` in the metadata.
    data
        Its contents.
    model
        The model of the index, whose tokens are counted where a text is split.

    Raises
    ------
    InvalidInputError
        For a name that is none, a format that is not read here, or a file that cannot be read.
    """
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidInputError(f"the file's name is {name[:100]!r}; expected 1 to 200 characters without a folder")
    suffix = Path(name).suffix.lower()
    if suffix not in accepted_suffixes():
        raise InvalidInputError(
            f"{name} is of a kind that is not read here; expected one of {', '.join(accepted_suffixes())}"
        )
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        path = Path(folder) / f"upload{suffix}"
        path.write_bytes(data)
        (file,) = find_files([path])
        options = ReadingOptions()
        try:
            passages = read_passages(replace(file, name=name), options, splitter_factory(model, options))
            return list(itertools.islice(passages, max_passages + 1))
        except MissingExtraError as error:
            raise InvalidInputError(f"{name} cannot be read here: its reader is not installed") from error
        except InvalidInputError as error:
            raise InvalidInputError(str(error).replace(str(path), name)) from error


@dataclass(frozen=True)
class StoredFile:
    """Numbers of passages: those that a file now has, and those of an earlier file of its name that were removed."""

    index: str
    passages: int
    removed: int


class FileStore:
    """Files into the indexes of a service; all methods belong to one event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turn = asyncio.Semaphore(_MAX_READING)
        # Two files of one name at a time would both remain, in part.
        self._storing = {name: asyncio.Lock() for name in service.indexes}

    async def put(self, name: str, data: bytes, index: str | None = None) -> StoredFile:
        """Store the passages of a file, in place of those of an earlier file of the same name.

        Raises
        ------
        IndexReadOnlyError
            Unless the service is writable.
        InvalidInputError
            For a file that cannot be read or has too many passages; then nothing is stored.
        UnknownIndexError
            If there is no such index.
        """
        opened = self._service.index_name(index)
        if not self._service.settings.writable:
            raise IndexReadOnlyError("the service is not writable")
        model = self._service.indexes[opened].model
        async with self._turn:
            passages = await run_blocking(read_upload, name, data, model, self._service.settings.max_texts)
        if not passages:
            raise InvalidInputError(f"{name} contains no text")
        async with self._storing[opened]:
            earlier = await run_blocking(lambda: list(self._service.indexes[opened].ids({"source": name})))
            ids = await self._service.upsert(passages, opened)
            stale = sorted(set(earlier) - set(ids))
            if stale:
                await self._service.delete(opened, ids=stale)
        return StoredFile(opened, len(set(ids)), len(stale))
