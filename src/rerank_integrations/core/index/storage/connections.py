"""Open connections to one catalog file: lent to threads one by one, following the file that stands at the path.

No SQL stands here; `catalog` says how a connection is opened and what it is used for.
"""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from rerank_integrations.core.concurrency.forks import before_each_fork, forks_held_off
from rerank_integrations.core.index.storage.refusals import is_there, lacking_for_read
from rerank_integrations.errors import IndexClosedError, IndexMovedError

# More are opened while more threads read at once; each keeps two or three files open.
_IDLE_CONNECTIONS = 8
# How often a folder that is being replaced at this very moment is looked at again.
_TRIES = 5

FileIdentity: TypeAlias = "tuple[int, int]"


class Connection(sqlite3.Connection):
    """A connection to a catalog, with the device and inode of the file that it has open.

    It remembers the version of the schema that was checked last.
    """

    identity: FileIdentity
    checked_schema: int | None = None


class Connections:
    """Connections to the file at one path, for any number of threads.

    A reader follows its path to the file that stands there now; a writer refuses to go on once that is another one. A
    fork waits for connections in use by other threads, and no connection crosses it: what SQLite remembers of a file's
    locks would be wrong in a child, and one of its own mutexes could be taken there for ever.

    Parameters
    ----------
    connect
        Opens a connection; its argument says whether the medium is read-only, so that the file cannot change.
    """

    def __init__(self, path: Path, connect: Callable[[bool], Connection], *, read_only: bool) -> None:
        self._path = path
        self._open = connect
        self._read_only = read_only
        self._changed = threading.Condition()
        self._idle: list[Connection] = []
        # The thread of each connection in use.
        self._users: list[int] = []
        self._identity: FileIdentity | None = None
        # Before a fork all connections are closed; without this another file might then get the inode.
        self._pin: io.FileIO | None = None
        self._closed = False
        with forks_held_off():
            _POOLS.add(self)

    @contextlib.contextmanager
    def lend(self) -> Iterator[Connection]:
        """Lend a connection to the calling thread; what it leaves uncommitted is rolled back."""
        with forks_held_off(), self._in_use():
            immutable = self._is_immutable()
            connection = self._connect(immutable) if immutable else self._take()
            keep = not immutable
            try:
                yield connection
            finally:
                try:
                    connection.rollback()
                except sqlite3.Error:
                    keep = False
                self._put_back(connection, keep)

    def is_in_place(self) -> bool:
        """Return whether the file that was opened first still stands at the path."""
        return self._identity is None or _identity(self._path) == self._identity

    def require_in_place(self) -> None:
        """Raise unless `is_in_place`.

        Raises
        ------
        IndexClosedError
            If the catalog was closed.
        IndexMovedError
            If another file stands at its path, or none.
        IndexReadError
            If the operating system does not say what stands there.
        """
        self._require_open()
        if not self.is_in_place():
            if lacking := lacking_for_read(self._path):
                raise lacking
            raise IndexMovedError(
                f"the index that was opened at {self._path.parent} is no longer there: the folder was moved, replaced "
                "or removed. Nothing was written or removed; close this index, and open the one you mean"
            )

    def close(self) -> None:
        """Close every connection, those in use when they are done; no new one is lent."""
        with forks_held_off(), self._changed:
            self._closed = True
            pin, self._pin = self._pin, None
        if pin is not None:
            pin.close()
        self.close_idle()

    def close_idle(self) -> None:
        """Close the connections that no thread uses; the next call opens another."""
        with forks_held_off(), self._changed:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def wait_unused(self, seconds: float) -> None:
        """Wait until no other thread uses a connection, for at most so many seconds."""
        this = threading.get_ident()
        with forks_held_off(), self._changed:
            self._changed.wait_for(lambda: all(user == this for user in self._users), seconds)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        this = threading.get_ident()
        with self._changed:
            self._require_open()
            self._users.append(this)
        try:
            yield
        finally:
            with self._changed:
                self._users.remove(this)
                self._changed.notify_all()

    def _take(self) -> Connection:
        stale: list[Connection] = []
        with self._changed:
            if not self._read_only:
                self.require_in_place()
            elif self._identity is not None and _identity(self._path) not in (None, self._identity):
                # Another index stands there now. One that was moved away is read on until then.
                stale, self._idle, self._identity = self._idle, [], None
            if self._idle:
                return self._idle.pop()
        for connection in stale:
            connection.close()
        return self._connect(immutable=False)

    def _put_back(self, connection: Connection, keep: bool) -> None:
        with self._changed:
            keep = keep and not self._closed and connection.identity == self._identity
            if keep and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _require_open(self) -> None:
        if self._closed:
            raise IndexClosedError(f"the index at {self._path.parent} is closed; open it again")

    def _is_immutable(self) -> bool:
        # On a read-only medium SQLite cannot make its shared-memory file, and needs none. Asked again each time: the
        # folder of someone else may get a writer at any moment.
        if not self._read_only or os.access(self._path.parent, os.W_OK):
            return False
        return is_there(self._path) and not is_there(Path(f"{self._path}-wal"))

    def _connect(self, immutable: bool) -> Connection:
        for _ in range(_TRIES):
            before = _identity(self._path)
            if before is None and self._identity is not None:
                self.require_in_place()
            connection = self._open(immutable)
            after = _identity(self._path)
            # SQLite opens the catalog and then its log, each by its path: both must be of one index.
            if after is not None and before in (None, after):
                connection.identity = after
                with self._changed:
                    if self._read_only or self._identity is None:
                        if after != self._identity or self._pin is None:
                            self._pin = _pin(self._path, after)
                        self._identity = after
                    if after == self._identity:
                        return connection
            connection.close()
            if not self._read_only:
                self.require_in_place()
        raise IndexMovedError(f"{self._path.parent} is replaced again and again; open the index once that is over")


_POOLS: weakref.WeakSet[Connections] = weakref.WeakSet()


def _close_idle_connections() -> None:
    for pool in list(_POOLS):
        with contextlib.suppress(sqlite3.Error):
            pool.close_idle()


before_each_fork(_close_idle_connections)


def _identity(path: Path) -> FileIdentity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _pin(path: Path, identity: FileIdentity) -> io.FileIO | None:
    """Keep the inode of the file at `path` from being given to another one, for as long as the returned file is open.

    Only Linux can without taking SQLite's locks, which closing any other descriptor of the file would do.
    """
    if not hasattr(os, "O_PATH"):
        return None
    with contextlib.suppress(OSError):
        pin = io.FileIO(path, opener=lambda name, _: os.open(name, os.O_PATH | os.O_CLOEXEC))
        status = os.fstat(pin.fileno())
        if (status.st_dev, status.st_ino) == identity:
            return pin
        pin.close()
    return None
