"""Sections that a fork waits for, so that a forked child finds every lock free, and nothing in the middle of a change.

A fork copies locks but not the threads that hold them: a lock that another thread holds at that moment stays locked in
the child for ever. New locks in the child would not help: the tokenizer behind one would stay in the middle of a text,
borrowed for good, and SQLite in the middle of a transaction. So each thread has one lock that it holds while it is in a
section, and a fork first takes the locks of all threads::

    with forks_held_off(), self._lock:
        ...

A section may lie inside another, and may wait for any lock that is taken only in sections: the threads that have one
are inside, and can finish. It must not wait for a thread that has yet to enter a section. A lock that is only tried, or
that a forked child never takes, needs no section.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401
import contextlib
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import filelock  # noqa: F401

# These imports make both libraries register for forks before this module: a fork calls the latest first, and a section
# may need their locks.


T = TypeVar("T")


class cached_property(functools.cached_property[T]):  # noqa: N801
    """The standard library's cached property, without its lock before Python 3.12, which a forked child may find taken.

    Several threads at once may each compute the value.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        super().__init__(compute)
        self.lock: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


def forks_held_off() -> threading.RLock:
    """Return the lock of the calling thread; while the thread has it, forks of other threads wait."""
    return _own.lock


def before_each_fork(act: Callable[[], None]) -> None:
    """Call `act` before each fork, on the thread that forks, when no other thread is in a section."""
    _actions.append(act)


_actions: list[Callable[[], None]] = []
# Taken for the whole of a fork, so that no two forks run at once, and no new thread enters a section meanwhile.
_one_fork = threading.RLock()
_locks: weakref.WeakValueDictionary[int, threading.RLock] = weakref.WeakValueDictionary()
_taken: list[Any] = []


class _Own(threading.local):
    """The lock of each thread, made at the thread's first section."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        with _one_fork:
            _locks[id(self.lock)] = self.lock


_own = _Own()


def _library_locks() -> Iterator[Any]:
    """Yield the locks of libraries that our threads take outside of sections: numba's to compile, tqdm's for its bars.

    The other half of tqdm's lock is shared between processes, so that a child needs nothing done for it.
    """
    compiler = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    bars = getattr(getattr(sys.modules.get("tqdm.std"), "TqdmDefaultWriteLock", None), "th_lock", None)
    yield from (lock for lock in (compiler, bars) if lock is not None)


def _take_all() -> None:
    _one_fork.acquire()
    threads = [lock for reference in _locks.valuerefs() if (lock := reference()) is not None]
    # The libraries' locks come last: threads in a section may need them until they leave it.
    for lock in (*threads, *_library_locks()):
        lock.acquire()
        _taken.append(lock)
    for act in _actions:
        act()


def _release_all() -> None:
    while _taken:
        _taken.pop().release()
    _one_fork.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take_all, after_in_parent=_release_all, after_in_child=_release_all)
