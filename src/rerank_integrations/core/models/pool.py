"""One loaded copy of a model per specification in the process: who shares it, and when it goes."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import logging
import math
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.models.checkpoints.options import LoadOptions

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


class Weights(NamedTuple):
    """The number format of a loaded model's weights, their size in bytes, and what computes with them."""

    dtype: str
    bytes: int
    backend: str


@dataclass(frozen=True)
class LoadedModel:
    """A copy of a model in memory, as `loaded_models` found it.

    Parameters
    ----------
    name
        The name or path that it was loaded by.
    kind
        ``"colbert"`` or ``"cross-encoder"``.
    device, dtype, backend
        Where it computes and in what, for instance ``"cpu"``, ``"bfloat16"``, ``"torch"``. The `dtype` of a graph
        backend is as it was asked for; the `backend` of a graph that strayed from torch is ``"torch"``.
    users
        Live `ColBERTModel` or `CrossEncoderModel` objects of this specification, used yet or not.
    calls_in_flight
        Calls that compute with it now.
    idle_seconds
        Since the last call ended; 0 during one.
    bytes
        The size of its weights; of a graph that of its files, which the backend may pack otherwise.
    """

    name: str
    kind: str
    device: str
    dtype: str
    backend: str
    users: int
    calls_in_flight: int
    idle_seconds: float
    bytes: int


class LoadedCopy:
    """A place for the loaded copy of a specification, and what its time-out needs to know; guarded by the registry."""

    def __init__(self, kind: str, options: LoadOptions) -> None:
        self.kind, self.options = kind, options
        # A lock a copy: loading one model must not hold up the use of another.
        self.loading = threading.RLock()
        self.value: Any = None
        self.calls: set[object] = set()
        self.last_call = time.monotonic()
        self.last_timeout = math.inf

    def let_go(self) -> str | None:
        """Empty the loaded object, which no call uses any more; return its device, ``None`` if the load has failed."""
        value, self.value = self.value, None
        if value is None:
            return None
        # The frame of the last call still names it, and so may a kept traceback: they are left an empty shell.
        vars(value).clear()
        return self.options.resolved_device()

    def described(self, users: int, now: float) -> LoadedModel:
        """Return what `loaded_models` says of it."""
        dtype, size, backend = self.value.weights
        return LoadedModel(
            name=self.options.name_or_path,
            kind=self.kind,
            device=self.options.resolved_device(),
            dtype=dtype,
            backend=backend,
            users=users,
            calls_in_flight=len(self.calls),
            idle_seconds=0.0 if self.calls else max(0.0, now - self.last_call),
            bytes=size,
        )

    def over_at(self, users: list[tuple[float, float]]) -> float:
        """Return when it will have been idle for long enough; infinity for never, and while a call is in flight.

        Parameters
        ----------
        users
            Of each, since when it has been there and its time-out. Without any the last caller's counts.
        """
        if self.calls:
            return math.inf
        if not users:
            return self.last_call + self.last_timeout
        return max(max(self.last_call, since) + timeout for since, timeout in users)


def trim_memory(device: str) -> None:
    """Return to the operating system, and to others on `device`, what nothing here refers to any more."""
    # sentence-transformers' models refer to themselves, so that counting references alone does not free them.
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
    # torch.cuda, torch.mps and torch.xpu keep freed memory for themselves; torch.cpu has no such function.
    kind = getattr(sys.modules.get("torch"), device.partition(":")[0], None)
    empty_cache = getattr(kind, "empty_cache", None)
    if empty_cache is not None:
        empty_cache()


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's ``malloc_trim``; ``None`` where the C library is another."""
    if sys.platform != "linux":
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


def free(copies: Iterable[LoadedCopy]) -> None:
    """Release weights that no call uses any more; garbage is collected once for all of them."""
    for device in {device for copy in copies if (device := copy.let_go()) is not None}:
        trim_memory(device)


Key: TypeAlias = "tuple[str, ...]"


class Share:
    """What a model object has in the copy of its specification; the copy has a user for as long as this lives.

    Parameters
    ----------
    load
        Makes the copy, an object with ``weights``.
    idle_timeout
        Seconds without a call after which this user can do without the copy; ``None``: never.
    """

    def __init__(
        self, kind: str, options: LoadOptions, load: Callable[[LoadOptions], Any], idle_timeout: float | None
    ) -> None:
        self.kind, self.options, self.load = kind, options, load
        self.idle_timeout = math.inf if idle_timeout is None else idle_timeout
        self.since = time.monotonic()
        REGISTRY.join(self)

    @property
    def key(self) -> Key:
        """The identity of the copy."""
        return self.options.key(self.kind)

    def loaded(self) -> AbstractContextManager[Any]:
        """Return a context manager that gives the copy, loaded if need be, and keeps it until the call is left."""
        return REGISTRY.call(self)

    def unload(self) -> None:
        """Drop the copy, for all who share it."""
        REGISTRY.drop(self.key)


class Registry:
    """Loads on first use, once, whatever the number of threads that ask; frees when the last call is over."""

    def __init__(self) -> None:
        # Reentrant: while it is held the garbage collector may run a user's __del__, and that may unload a model.
        self._lock = threading.RLock()
        self._copies: dict[Key, LoadedCopy] = {}
        self._shares: weakref.WeakValueDictionary[int, Share] = weakref.WeakValueDictionary()
        self._watch = IdleWatch(self._drop_idle)
        self._timed = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def join(self, share: Share) -> None:
        """Count `share` among the users for as long as it lives."""
        with forks_held_off(), self._lock:
            self._shares[id(share)] = share
            self._timed |= share.idle_timeout < math.inf
            if self._timed and self._copies:
                self._watch.by(share.since + share.idle_timeout)
        # Once it is gone the others' time-outs may be over.
        weakref.finalize(share, self._watch.wake).atexit = False

    @contextlib.contextmanager
    def call(self, share: Share) -> Iterator[Any]:
        """Yield the copy for a call on `share`, loading it if there is none; a failed load is tried again next time."""
        key, call = share.key, object()
        with forks_held_off(), self._lock:
            copy = self._copies.get(key) or self._copies.setdefault(key, LoadedCopy(share.kind, share.options))
            copy.calls.add(call)
        try:
            with forks_held_off(), copy.loading:
                if copy.value is None:
                    copy.value = share.load(share.options)
            yield copy.value
        finally:
            self._end(call, copy, key, share)

    def drop(self, key: Key) -> None:
        """Forget the copy under `key`; its memory is free at once, or when the last call in flight has ended."""
        free(self._forgotten([key]))

    def drop_all(self) -> None:
        """Forget every copy."""
        free(self._forgotten(list(self._copies)))

    def _forgotten(self, keys: list[Key]) -> list[LoadedCopy]:
        """Take the copies under `keys` out, and return those without calls in flight."""
        with forks_held_off(), self._lock:
            found = [copy for key in keys if (copy := self._copies.pop(key, None))]
            return [copy for copy in found if not copy.calls]

    def list_loaded(self) -> list[LoadedModel]:
        """Return what is loaded, the oldest first."""
        sharers, now = self._sharers(), time.monotonic()
        with forks_held_off(), self._lock:
            loaded = [(key, copy) for key, copy in self._copies.items() if copy.value is not None]
            return [copy.described(len(sharers.get(key, ())), now) for key, copy in loaded]

    def _end(self, call: object, copy: LoadedCopy, key: Key, share: Share) -> None:
        with forks_held_off(), self._lock:
            copy.calls.discard(call)
            copy.last_call, copy.last_timeout = time.monotonic(), share.idle_timeout
            if copy.value is None and not copy.calls and self._copies.get(key) is copy:
                del self._copies[key]
            spent = not copy.calls and self._copies.get(key) is not copy
            if self._timed:
                # No earlier can it be over: the longest time-out rules. The thread looks when the longest is over.
                self._watch.by(copy.last_call + share.idle_timeout)
        if spent:
            free([copy])

    def _drop_idle(self) -> float:
        """Drop what nobody needs any more; return when there may be more to drop."""
        sharers = self._sharers()
        with forks_held_off(), self._lock:
            over_at = {key: copy.over_at(sharers.get(key, [])) for key, copy in list(self._copies.items())}
            now = time.monotonic()
            over = [copy for key, end in over_at.items() if end <= now and (copy := self._copies.pop(key, None))]
        free(over)
        return min((end for end in over_at.values() if end > now), default=math.inf)

    def _sharers(self) -> dict[Key, list[tuple[float, float]]]:
        """Return who shares what, by arrival and time-out; without the lock, since it looks at the file system."""
        found: dict[Key, list[tuple[float, float]]] = {}
        # With nothing loaded nobody needs to know, and resolving a device would import torch.
        shares = [reference() for reference in self._shares.valuerefs()] if self._copies else []
        for share in shares:
            # A relative path means nothing once the working directory is gone.
            with contextlib.suppress(OSError):
                if share is not None:
                    found.setdefault(share.key, []).append((share.since, share.idle_timeout))
        return found

    def _forked(self) -> None:
        # The parent's threads are not here: nobody will end their calls.
        for copy in self._copies.values():
            copy.calls.clear()
        self._watch.forget_thread()


REGISTRY = Registry()


def loaded_models() -> list[LoadedModel]:
    """Return the models that are in memory in this process, in the order in which they came.

    One that was unloaded is not among them, though its memory is held until the calls in flight have ended.
    """
    return REGISTRY.list_loaded()


def unload_all() -> None:
    """Drop every loaded model, as `unload` of each would; the next use of one loads it again."""
    REGISTRY.drop_all()
