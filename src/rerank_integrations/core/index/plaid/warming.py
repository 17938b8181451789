"""Compiling the loops in a process of its own, before they are needed.

Compiling takes some ten seconds of a core, most of them with the interpreter's lock held: a process that serves would
stand still. So a child compiles and fills numba's cache, once per machine, and its parent only loads from there.

Imports no numba but in the child.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.index.plaid.code_folder import is_complete, writable_folder

_LOG = logging.getLogger(__name__)

# A child that takes longer hangs; then the caller compiles.
_LONGEST_SECONDS = 600.0
# Nothing is imported before the parent's path is in place: the working folder stands first in a child's own.
_CHILD = (
    "import sys; sys.path[:] = sys.argv[3:]; from rerank_integrations.core.index.plaid.rehearsal import main; main()"
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def start_compiling(nbits: int) -> None:
    """Have the loops for an index of so many bits compiled by a child, unless they are or another process does so.

    Tried once per process.
    """
    here = _here()
    if nbits not in here.asked and not is_complete(nbits) and _can_start():
        here.child(nbits, waits=False)
    here.asked.add(nbits)


def require_compiled(nbits: int) -> None:
    """Wait until a child has compiled the loops for an index of so many bits; other threads go on meanwhile.

    Where no child can do it, because no folder can be written or it failed, the loops are compiled at their first call.
    """
    here = _here()
    if nbits in here.ready:
        return
    while not is_complete(nbits) and _can_start():
        child = here.child(nbits, waits=True)
        if child is None:
            break
        child.ended.wait(_LONGEST_SECONDS)
        # One that was started ahead leaves at once where another process compiles: then one that waits for that.
        if child.waits and not is_complete(nbits):
            _LOG.warning("the search loops are compiled in this process, since a child did not: %s", child.message())
            break
    here.ready.add(nbits)


def mark_ready(nbits: int) -> None:
    """Have this process use the loops for an index with this many bits per dimension as they are, without a child."""
    _here().ready.add(nbits)


class _Child:
    def __init__(self, nbits: int, waits: bool) -> None:
        self.waits = waits
        self.ended = threading.Event()
        self._said = b""
        command = [sys.executable, "-c", _CHILD, str(nbits), "wait" if waits else "leave", *sys.path]
        # Its standard input ends when this process does, however it does.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
        )
        try:
            threading.Thread(target=self._reap, name="plaid-compiling", daemon=True).start()
        except RuntimeError as error:
            self.stop()
            raise OSError(str(error)) from error

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def message(self) -> str:
        lines = self._said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def _reap(self) -> None:
        assert self._process.stderr is not None and self._process.stdin is not None
        with self._process.stderr as said:
            self._said = said.read()
        self._process.wait()
        self._process.stdin.close()
        self.ended.set()


class _Here:
    """A process's children, one per kind of index, the kinds that are compiled, and those that were asked for."""

    def __init__(self) -> None:
        self.asked: set[int] = set()
        self.ready: set[int] = set()
        self._children: dict[int, _Child] = {}
        self._lock = threading.Lock()

    def child(self, nbits: int, *, waits: bool) -> _Child | None:
        """Return the child that compiles, started unless there is one; ``None`` if the system refuses."""
        with forks_held_off(), self._lock:
            child = self._children.get(nbits)
            if child is None or child.ended.is_set():
                try:
                    child = self._children[nbits] = _Child(nbits, waits)
                except OSError as error:
                    _LOG.warning("no process to compile the search loops in can be started: %s", error)
                    return None
            return child

    def stop(self) -> None:
        with forks_held_off(), self._lock:
            for child in self._children.values():
                child.stop()


@functools.cache
def _of_process(pid: int) -> _Here:
    # By process: a forked child has none of its parent's threads, and its parent's children are not its own.
    here = _Here()

    def stop() -> None:
        if os.getpid() == pid:
            here.stop()

    atexit.register(stop)
    return here


def _here() -> _Here:
    return _of_process(os.getpid())


def _can_start() -> bool:
    # In a frozen program or an embedding one, the executable is not an interpreter.
    interpreter = Path(sys.executable or "").name.lower().startswith(("python", "pypy"))
    return interpreter and not getattr(sys, "frozen", False) and writable_folder() is not None
