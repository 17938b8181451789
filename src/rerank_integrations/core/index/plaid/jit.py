"""Compiling the inner loops with numba, once per machine."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any, cast

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator

from rerank_integrations.core.index.plaid.code_folder import code_folders, writable_folder

# Each way in, from Python and from C, takes time to compile. numba's types do not name these options.
_JIT: Any = functools.partial(
    cast(Any, numba.njit), nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)


def inlined(function: Any) -> Any:
    """Compile as a part of the loops that call it."""
    return _JIT(forceinline=True)(function)


def called(function: Any) -> Any:
    """Compile as a function that only other loops call, inlined where LLVM sees fit."""
    return _JIT()(function)


def apart(function: Any) -> Any:
    """Compile as a function that only other loops call, and that never becomes a part of them.

    Numba's way in from C is another caller, so that LLVM leaves it where it is.
    """
    return _JIT(no_cfunc_wrapper=False)(function)


def compiled(function: Any) -> Any:
    """Compile at the first call, without the interpreter's lock; kept for other processes where a folder can be."""
    loop: Any = _JIT(no_cpython_wrapper=False)(function)
    loop._cache = _Caches(function)
    return loop


class _Caches:
    """A function's compiled code in every folder that may hold it; `numba.core.caching._Cache` to numba."""

    def __init__(self, function: Any) -> None:
        written = writable_folder()
        self._written = _cache(function, written)
        self._read = [_cache(function, folder) for folder in code_folders() if folder != written]

    @property
    def cache_path(self) -> str | None:
        return None if self._written is None else str(self._written.cache_path)

    def load_overload(self, signature: Any, context: Any) -> Any:
        for cache in (self._written, *self._read):
            # What a killed process or a full disk left behind is compiled again, whatever pickle says of it.
            with contextlib.suppress(Exception):
                found = None if cache is None else cache.load_overload(signature, context)
                if found is not None:
                    return found
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        # A full disk is no reason for a search to fail.
        with contextlib.suppress(Exception):
            if self._written is not None:
                self._written.save_overload(signature, compiled)


def _cache(function: Any, folder: Path | None) -> Any:
    if folder is None:
        return None

    class Locator(UserProvidedCacheLocator):
        def __init__(self, function: Any, file: str) -> None:
            super().__init__(function, file)  # type: ignore[no-untyped-call]
            self._cache_path = str(folder)

        @classmethod
        def from_function(cls, function: Any, file: str) -> Any:
            return cls(function, file)

    class Implementation(CompileResultCacheImpl):
        _locator_classes = [Locator]  # noqa: RUF012

    class Cache(FunctionCache):
        _impl_class = Implementation

    try:
        return Cache(function)  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError):
        # The sources are in no file, or the user has numba look in other places and there are none.
        return None
