"""Locks that a fork waits for, so that a child finds them free.

A fork copies locks but not the threads that hold them: what another thread holds at that moment, a child never gets.
Making such locks anew in the child would not do: the tokenizer behind one would stay as it was in the middle of a text,
borrowed for good. So a fork first takes them all: it waits for texts being tokenised and for a model being loaded.
"""

from __future__ import annotations

# So that it registers its lock before us: a fork takes the latest first, and who loads a model may need that one yet.
import concurrent.futures.thread  # noqa: F401
import os
import threading
import weakref


def fork_safe_lock() -> threading.RLock:
    """Return a reentrant lock that every forked child finds free.

    Who holds one may make another, but must not wait for one.
    """
    lock = threading.RLock()
    _locks[id(lock)] = lock
    return lock


_locks: weakref.WeakValueDictionary[int, threading.RLock] = weakref.WeakValueDictionary()
_one_fork = threading.RLock()
_held: list[threading.RLock] = []


def _take_all() -> None:
    # Two threads that fork at once would each take half.
    _one_fork.acquire()
    # Again until there is no new one: what made it may use it before it must wait for one of ours.
    while new := [lock for ref in _locks.valuerefs() if (lock := ref()) is not None and lock not in _held]:
        for lock in new:
            lock.acquire()
            _held.append(lock)


def _release_all() -> None:
    while _held:
        _held.pop().release()
    _one_fork.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take_all, after_in_parent=_release_all, after_in_child=_release_all)
