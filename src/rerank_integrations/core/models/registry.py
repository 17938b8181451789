"""One loaded copy of a model per specification in the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Any = None


class Registry:
    """Loads on first use, once, whatever the number of threads that ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, ...], _Slot] = {}

    def get(self, key: tuple[str, ...], load: Callable[[], Any]) -> Any:
        """Return the copy under `key`, loading it if there is none; a failed load is tried again next time."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
        # A lock a slot: loading one model must not hold up the use of another.
        with slot.lock:
            if slot.value is None:
                slot.value = load()
            return slot.value

    def drop(self, key: tuple[str, ...]) -> None:
        """Forget the copy under `key`; calls in flight finish on it, then its memory is free."""
        with self._lock:
            self._slots.pop(key, None)


REGISTRY = Registry()
