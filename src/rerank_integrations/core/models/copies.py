"""A loaded model as the registry keeps it, and as `loaded_models` shows it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rerank_integrations.core.models.memory import give_back
from rerank_integrations.core.models.options import LoadOptions


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


def free(copies: Iterable[LoadedCopy]) -> None:
    """Release weights that no call uses any more; garbage is collected once for all of them."""
    for device in {device for copy in copies if (device := copy.let_go()) is not None}:
        give_back(device)
