"""One writer an index, across processes; the lock goes with the process that holds it."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from rerank_integrations.errors import IndexLockedError, IndexWriteError

FILENAME = "writer.lock"


def acquire(path: Path) -> FileLock:
    """Take the writer's lock of the index at `path`, at once or not at all.

    Raises
    ------
    IndexLockedError
        If another writer, in this process or another, has it.
    """
    lock = FileLock(path / FILENAME, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise IndexLockedError(
            f"{path} is open for writing elsewhere; close that writer, or open with read_only=True to search"
        ) from error
    except OSError as error:
        raise IndexWriteError(
            f"{path} cannot be opened for writing: {error}; open with read_only=True to search"
        ) from error
    return lock
