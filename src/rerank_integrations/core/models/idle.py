"""The thread that sees to idle time-outs; there is none until somebody asks for one."""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

# Of waiting at once: platforms bound it, some at 49 days.
_LONGEST_S = 86400.0


class IdleWatch:
    """Calls `sweep` whenever it may be due, on a daemon thread that sleeps in between.

    Parameters
    ----------
    sweep
        Does what is due and returns when to call it again, on the clock of `time.monotonic`; infinity if not before the
        next `by` or `wake`.
    """

    def __init__(self, sweep: Callable[[], float]) -> None:
        self._sweep = sweep
        self.forget_thread()

    def forget_thread(self) -> None:
        """Be as new: in a forked child there is no thread."""
        self._thread: threading.Thread | None = None
        self._next = math.inf
        # Of queues and events the only one whose put() may interrupt itself, which a garbage collector's call does.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def by(self, moment: float) -> None:
        """Have a sweep at `moment` or before; for one caller at a time."""
        if self._thread is None:
            self._start()
        elif moment < self._next:
            self.wake()

    def wake(self) -> None:
        """Have a sweep now if the thread runs; takes no lock, so that a garbage collector may call it."""
        if self._thread is not None:
            self._calls.put(True)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="rerank-integrations-idle", daemon=True)
        # While the interpreter shuts down no thread can start, and none is needed.
        with contextlib.suppress(RuntimeError):
            self._thread.start()
            atexit.register(self._stop)
            return
        self._thread = None

    def _stop(self) -> None:
        # A daemon that is freeing a model while the interpreter goes could crash it.
        thread, self._thread = self._thread, None
        if thread is not None:
            self._calls.put(False)
            thread.join(timeout=5)

    def _run(self) -> None:
        going = True
        while going:
            # Infinity first: whoever comes while the sweep looks must wake us again.
            self._next = math.inf
            try:
                self._next = self._sweep()
            except Exception:
                logger.exception("models that are idle could not be unloaded")
            left = max(0.0, self._next - time.monotonic())
            with contextlib.suppress(queue.Empty):
                going = self._calls.get(timeout=min(left, _LONGEST_S))
