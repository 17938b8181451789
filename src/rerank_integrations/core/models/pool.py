"""The pool of loaded models: one copy per specification in the process, who uses it, and when it is dropped."""

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
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.models.checkpoints.options import LoadOptions, ModelKind

logger: logging.Logger = logging.getLogger(__name__)

# The longest single wait of the idle thread: platforms limit it, some to 49 days.
_LONGEST_WAIT_SECONDS = 86400.0


class IdleWatch:
    """Call `sweep` whenever it may be due, on a daemon thread that sleeps in between.

    Parameters
    ----------
    sweep
        Does what is due and returns when to call it again, on the clock of `time.monotonic`; infinity means not before
        the next `wake_by` or `wake`.
    """

    def __init__(self, sweep: Callable[[], float]) -> None:
        self._sweep = sweep
        self.forget_thread()

    def forget_thread(self) -> None:
        """Return to the initial state: a forked child has no such thread."""
        self._thread: threading.Thread | None = None
        self._next = math.inf
        # The only queue or event whose put() may interrupt itself, which a call by the garbage collector does.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def wake_by(self, moment: float) -> None:
        """Sweep at `moment` or earlier; only one caller may call this at a time."""
        if self._thread is None:
            self._start()
        elif moment < self._next:
            self.wake()

    def wake(self) -> None:
        """Sweep now if the thread runs; takes no lock, so that a garbage collector may call it."""
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
        # A daemon thread that frees a model while the interpreter shuts down could crash it.
        thread, self._thread = self._thread, None
        if thread is not None:
            self._calls.put(False)
            thread.join(timeout=5)

    def _run(self) -> None:
        running = True
        while running:
            # Set to infinity first: a caller that arrives during the sweep must wake the thread again.
            self._next = math.inf
            try:
                self._next = self._sweep()
            except Exception:
                logger.exception("models that are idle could not be unloaded")
            remaining = max(0.0, self._next - time.monotonic())
            with contextlib.suppress(queue.Empty):
                running = self._calls.get(timeout=min(remaining, _LONGEST_WAIT_SECONDS))


class Weights(NamedTuple):
    """The number format of a loaded model's weights, their size in bytes, and the backend that computes with them."""

    dtype: str
    bytes: int
    backend: str


class Loaded(Protocol):
    """The parts that every loaded model has, whatever its kind."""

    weights: Weights

    @property
    def converted_path(self) -> Path | None:
        """The folder of the converted encoder; ``None`` where torch computes."""
        ...

    def spans(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """Return the character span of each token of each text, before any cut."""
        ...


# Covariant: the pool handles leases of both kinds alike.
LoadedT = TypeVar("LoadedT", bound=Loaded, covariant=True)


@dataclass(frozen=True)
class LoadedModel:
    """A copy of a model in memory, as `loaded_models` reports it.

    Parameters
    ----------
    name
        The name or path that it was loaded by.
    kind
        ``"colbert"`` or ``"cross-encoder"``.
    device, dtype, backend
        Where it computes and in what, for instance ``"cpu"``, ``"bfloat16"``, ``"torch"``. The `dtype` of a graph
        backend is the one that was asked for; the `backend` of a graph that strayed from torch is ``"torch"``.
    users
        Live `ColBERTModel` or `CrossEncoderModel` objects of this specification, used yet or not.
    calls_in_flight
        Calls that compute with it now.
    idle_seconds
        Time since the last call ended; 0 during a call.
    bytes
        The size of its weights; for a graph the size of its files, which the backend may pack otherwise.
    """

    name: str
    kind: ModelKind
    device: str
    dtype: str
    backend: str
    users: int
    calls_in_flight: int
    idle_seconds: float
    bytes: int


class PooledModel:
    """The loaded copy of one specification, with what its time-out depends on; guarded by the pool's lock."""

    def __init__(self, kind: ModelKind, options: LoadOptions) -> None:
        self.kind: ModelKind = kind
        self.options: LoadOptions = options
        # One lock per copy: loading one model must not delay the use of another.
        self.loading: threading.RLock = threading.RLock()
        self.value: Loaded | None = None
        self.calls: set[object] = set()
        self.last_call: float = time.monotonic()
        self.last_timeout: float = math.inf

    def release(self) -> str | None:
        """Empty the loaded object, which no call uses any more; return its device, ``None`` if the load has failed."""
        value, self.value = self.value, None
        if value is None:
            return None
        # The frame of the last call still refers to it, and so may a stored traceback: they keep an empty shell.
        vars(value).clear()
        return self.options.resolved_device()

    def describe(self, value: Loaded, users: int, now: float) -> LoadedModel:
        """Return the entry of `loaded_models` for this copy, whose loaded object is `value`."""
        dtype, size, backend = value.weights
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

    def expires_at(self, users: list[tuple[float, float]]) -> float:
        """Return when this copy has been idle for long enough; infinity for never, and while a call is in flight.

        Parameters
        ----------
        users
            The creation time and the time-out of each user. Without users the last caller's time-out counts.
        """
        if self.calls:
            return math.inf
        if not users:
            return self.last_call + self.last_timeout
        return max(max(self.last_call, since) + timeout for since, timeout in users)


def trim_memory(device: str) -> None:
    """Return unreferenced memory to the operating system, and on `device` to other processes."""
    # sentence-transformers' models refer to themselves, so that counting references alone does not free them.
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
    # torch.cuda, torch.mps and torch.xpu keep freed memory for themselves; torch.cpu has no such function.
    accelerator = getattr(sys.modules.get("torch"), device.partition(":")[0], None)
    empty_cache = getattr(accelerator, "empty_cache", None)
    if empty_cache is not None:
        empty_cache()


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's ``malloc_trim``; ``None`` with another C library."""
    if sys.platform != "linux":
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


def _free(copies: Iterable[PooledModel]) -> None:
    """Release copies that no call uses any more; garbage is collected once for all of them."""
    for device in {device for copy in copies if (device := copy.release()) is not None}:
        trim_memory(device)


Key: TypeAlias = "tuple[str, ...]"


class Lease(Generic[LoadedT]):
    """A model object's lease on the shared loaded copy; it counts as a user of the copy while it lives.

    Parameters
    ----------
    load
        Makes the copy.
    idle_timeout
        Seconds without a call after which this user can do without the copy; ``None`` means never.
    """

    def __init__(
        self, kind: ModelKind, options: LoadOptions, load: Callable[[LoadOptions], LoadedT], idle_timeout: float | None
    ) -> None:
        self.kind: ModelKind = kind
        self.options: LoadOptions = options
        self.load: Callable[[LoadOptions], LoadedT] = load
        self.idle_timeout: float = math.inf if idle_timeout is None else idle_timeout
        self.since: float = time.monotonic()
        POOL.register(self)

    @property
    def key(self) -> Key:
        """The identity of the copy."""
        return self.options.key(self.kind)

    def loaded(self) -> AbstractContextManager[LoadedT]:
        """Return a context manager that yields the copy, loading it if need be; the copy stays until it exits."""
        # Copies are stored by kind, and a kind has one class of loaded model.
        return cast("AbstractContextManager[LoadedT]", POOL.use(self))

    def unload(self) -> None:
        """Drop the copy, for all who share it."""
        POOL.drop(self.key)


AnyLease: TypeAlias = "Lease[Loaded]"


class ModelPool:
    """Load on first use, once for all threads that ask; free when the last call has ended."""

    def __init__(self) -> None:
        # Reentrant: while this thread holds it the garbage collector may run a user's __del__, which may unload a
        # model.
        self._lock = threading.RLock()
        self._copies: dict[Key, PooledModel] = {}
        self._leases: weakref.WeakValueDictionary[int, AnyLease] = weakref.WeakValueDictionary()
        self._watch = IdleWatch(self._drop_expired)
        self._has_timeouts = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset_after_fork)

    def register(self, lease: AnyLease) -> None:
        """Count `lease` among the users for as long as it lives."""
        with forks_held_off(), self._lock:
            self._leases[id(lease)] = lease
            self._has_timeouts |= lease.idle_timeout < math.inf
            if self._has_timeouts and self._copies:
                self._watch.wake_by(lease.since + lease.idle_timeout)
        # Once this lease has ended, the time-outs of the others may have passed.
        weakref.finalize(lease, self._watch.wake).atexit = False

    @contextlib.contextmanager
    def use(self, lease: AnyLease) -> Iterator[Loaded]:
        """Yield the copy for one call, loading it if there is none; the next call tries a failed load again."""
        key, call = lease.key, object()
        with forks_held_off(), self._lock:
            copy = self._copies.get(key) or self._copies.setdefault(key, PooledModel(lease.kind, lease.options))
            copy.calls.add(call)
        try:
            with forks_held_off(), copy.loading:
                if copy.value is None:
                    copy.value = lease.load(lease.options)
            yield copy.value
        finally:
            self._end_call(call, copy, key, lease)

    def drop(self, key: Key) -> None:
        """Forget the copy under `key`; its memory is free at once, or when the last call in flight has ended."""
        _free(self._pop([key]))

    def drop_all(self) -> None:
        """Forget every copy."""
        _free(self._pop(list(self._copies)))

    def _pop(self, keys: list[Key]) -> list[PooledModel]:
        """Remove the copies under `keys`, and return those without calls in flight."""
        with forks_held_off(), self._lock:
            popped = [copy for key in keys if (copy := self._copies.pop(key, None))]
            return [copy for copy in popped if not copy.calls]

    def list_loaded(self) -> list[LoadedModel]:
        """Return the loaded copies, the oldest first."""
        users, now = self._users(), time.monotonic()
        with forks_held_off(), self._lock:
            return [
                copy.describe(copy.value, len(users.get(key, ())), now)
                for key, copy in self._copies.items()
                if copy.value is not None
            ]

    def _end_call(self, call: object, copy: PooledModel, key: Key, lease: AnyLease) -> None:
        with forks_held_off(), self._lock:
            copy.calls.discard(call)
            copy.last_call, copy.last_timeout = time.monotonic(), lease.idle_timeout
            if copy.value is None and not copy.calls and self._copies.get(key) is copy:
                del self._copies[key]
            is_dropped = not copy.calls and self._copies.get(key) is not copy
            if self._has_timeouts:
                # It cannot expire earlier, since the longest time-out counts. The thread checks again then.
                self._watch.wake_by(copy.last_call + lease.idle_timeout)
        if is_dropped:
            _free([copy])

    def _drop_expired(self) -> float:
        """Drop the copies that nobody needs any more; return when there may be more to drop."""
        users = self._users()
        with forks_held_off(), self._lock:
            expiries = {key: copy.expires_at(users.get(key, [])) for key, copy in list(self._copies.items())}
            now = time.monotonic()
            expired = [
                copy for key, moment in expiries.items() if moment <= now and (copy := self._copies.pop(key, None))
            ]
        _free(expired)
        return min((moment for moment in expiries.values() if moment > now), default=math.inf)

    def _users(self) -> dict[Key, list[tuple[float, float]]]:
        """Return creation time and time-out of each lease, by key; without the lock, since it reads the file system."""
        users: dict[Key, list[tuple[float, float]]] = {}
        # With nothing loaded nobody needs to know, and resolving a device would import torch.
        leases = [reference() for reference in self._leases.valuerefs()] if self._copies else []
        for lease in leases:
            # A relative path means nothing once the working directory has been removed.
            with contextlib.suppress(OSError):
                if lease is not None:
                    users.setdefault(lease.key, []).append((lease.since, lease.idle_timeout))
        return users

    def _reset_after_fork(self) -> None:
        # The parent's threads do not exist here, so nobody will end their calls.
        for copy in self._copies.values():
            copy.calls.clear()
        self._watch.forget_thread()


POOL = ModelPool()


def loaded_models() -> list[LoadedModel]:
    """Return the models that are in memory in this process, the first loaded first.

    A model that was unloaded is not among them, though its memory stays in use until the calls in flight have ended.
    """
    return POOL.list_loaded()


def unload_all() -> None:
    """Drop every loaded model, as `unload` of each would; the next use of one loads it again."""
    POOL.drop_all()
