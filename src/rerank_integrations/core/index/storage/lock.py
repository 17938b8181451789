"""The lock that lets an index have one writer across processes; it ends with the process that has it."""

from __future__ import annotations

import errno
import os
import weakref
from pathlib import Path

from filelock import FileLock, Timeout

from rerank_integrations.core.index.storage.refusals import cause
from rerank_integrations.errors import IndexLockedError, IndexMovedError, IndexWriteError

try:
    import fcntl
except ImportError:
    # Windows, where an open file cannot be removed, so that `writer.lock` alone suffices.
    fcntl = None  # type: ignore[assignment]

FILENAME = "writer.lock"


class WriterLock:
    """The lock of an index's one writer: a lock file, and on POSIX the folder itself.

    A lock file can be removed, and the next writer would make another. The folder can only be replaced, which the
    writer notices.
    """

    def __init__(self, path: Path, file_lock: FileLock, folder: int | None) -> None:
        self._file = path / FILENAME
        self._file_lock = file_lock
        self._folder = folder
        self._inode = _inode(self._file)
        _acquired.add(self)

    def require_owned(self) -> None:
        """Raise `IndexMovedError` if another writer may have the index by now."""
        if self._folder is None and _inode(self._file) != self._inode:
            raise IndexMovedError(
                f"{self._file} was removed or replaced, so another writer may have the index; nothing was written. "
                "Close this index and open it again"
            )

    def release(self) -> None:
        """Release the lock, so that the next writer can take it."""
        folder, self._folder = self._folder, None
        if folder is not None:
            fcntl.flock(folder, fcntl.LOCK_UN)
            os.close(folder)
        self._file_lock.release()

    def _forget(self) -> None:
        # A forked child's copy would keep the lock after the parent's end; closing it leaves the parent's alone.
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder)


_acquired: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_acquired):
        lock._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def acquire(path: Path) -> WriterLock:
    """Take the writer's lock of the index at `path` without waiting.

    Raises
    ------
    IndexLockedError
        If another writer, in this process or another, has it.
    IndexWriteError
        If the operating system refuses it.
    """
    file_lock = FileLock(path / FILENAME, thread_local=False)
    try:
        file_lock.acquire(timeout=0)
    except Timeout as error:
        raise _locked(path) from error
    except OSError as error:
        raise _refused(path, error) from error
    try:
        return WriterLock(path, file_lock, _lock_folder(path))
    except BaseException:
        file_lock.release()
        raise


def _lock_folder(path: Path) -> int | None:
    """Return a descriptor of the locked folder; ``None`` where the system cannot lock folders."""
    if fcntl is None:
        return None
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _refused(path, error) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(folder)
        if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
            raise _locked(path) from error
        return None
    return folder


def _locked(path: Path) -> IndexLockedError:
    return IndexLockedError(
        f"{path} is open for writing elsewhere; close that writer, or open with read_only=True to search"
    )


def _refused(path: Path, error: OSError) -> IndexWriteError:
    return IndexWriteError(f"{path} cannot be opened for writing: {cause(error)}; open with read_only=True to search")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
