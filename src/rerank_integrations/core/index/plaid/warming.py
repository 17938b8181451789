"""Compilation of the loops in a process of its own, before they are needed.

Compiling takes some ten seconds of a core, most of them with the interpreter's lock held, so a process that serves
would stand still. Therefore a child process compiles and fills numba's cache, once per machine, and its parent only
loads from there. The child runs `rehearsal`, which this module names as text and does not import.

Importing this module loads no numba.
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

# A child that takes longer hangs, and its parent compiles instead.
_CHILD_TIMEOUT_SECONDS = 600.0
# The parent's search path comes before the first import, since a child's own begins with the working folder.
_CHILD = (
    "import sys; sys.path[:] = sys.argv[3:]; from rerank_integrations.core.index.plaid.rehearsal import main; main()"
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def start_compiling(nbits: int) -> None:
    """Start a child that compiles the loops for an index with this many bits per dimension.

    Nothing starts if they are compiled, if another process compiles them, or if this process has tried before.
    """
    children = _children_here()
    if nbits not in children.tried and not is_complete(nbits) and _can_start():
        children.start(nbits, waits=False)
    children.tried.add(nbits)


def require_compiled(nbits: int) -> None:
    """Wait until a child has compiled the loops for an index with this many bits; other threads go on meanwhile.

    If no child can do it, because no folder can be written or it failed, the loops are compiled at their first call.
    """
    children = _children_here()
    if nbits in children.ready:
        return
    while not is_complete(nbits) and _can_start():
        child = children.start(nbits, waits=True)
        if child is None:
            break
        child.ended.wait(_CHILD_TIMEOUT_SECONDS)
        # A child that was started ahead ends at once if another process compiles. The next one waits for that process.
        if child.waits and not is_complete(nbits):
            _LOG.warning("the search loops are compiled in this process, since a child did not: %s", child.message())
            break
    children.ready.add(nbits)


def mark_ready(nbits: int) -> None:
    """Have this process use the loops for an index with this many bits per dimension as they are, without a child."""
    _children_here().ready.add(nbits)


class _Child:
    """A process that compiles, and the thread that waits for its end."""

    def __init__(self, nbits: int, waits: bool) -> None:
        self.waits = waits
        self.ended = threading.Event()
        self._errors = b""
        command = [sys.executable, "-c", _CHILD, str(nbits), "wait" if waits else "leave", *sys.path]
        # The child's standard input ends when this process ends, in whatever way.
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
        lines = self._errors.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def _reap(self) -> None:
        assert self._process.stderr is not None and self._process.stdin is not None
        with self._process.stderr as errors:
            self._errors = errors.read()
        self._process.wait()
        self._process.stdin.close()
        self.ended.set()


class _Children:
    """The compiling children of a process, by bits per dimension, and which bits are ready or were tried."""

    def __init__(self) -> None:
        self.tried: set[int] = set()
        self.ready: set[int] = set()
        self._children: dict[int, _Child] = {}
        self._lock = threading.Lock()

    def start(self, nbits: int, *, waits: bool) -> _Child | None:
        """Return the child that compiles, starting one if none runs; ``None`` if the system refuses."""
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
def _of_process(pid: int) -> _Children:
    # One per process: a forked child has none of its parent's threads, and its parent's children are not its own.
    children = _Children()

    def stop() -> None:
        if os.getpid() == pid:
            children.stop()

    atexit.register(stop)
    return children


def _children_here() -> _Children:
    return _of_process(os.getpid())


def _can_start() -> bool:
    # The executable of a frozen program, or of one that embeds Python, is not an interpreter.
    interpreter = Path(sys.executable or "").name.lower().startswith(("python", "pypy"))
    return interpreter and not getattr(sys, "frozen", False) and writable_folder() is not None
