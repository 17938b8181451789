"""Decorators that compile the inner loops with numba, once per machine."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator

from rerank_integrations.core.index.plaid.code_folder import code_folders, writable_folder

F = TypeVar("F", bound=Callable[..., Any])

# Each wrapper, for callers from Python and from C, takes time to compile. numba's types do not name these options.
_JIT: Any = functools.partial(
    cast(Any, numba.njit), nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)


def inlined(function: F) -> F:
    """Compile a function as a part of the loops that call it."""
    return cast(F, _JIT(forceinline=True)(function))


def called(function: F) -> F:
    """Compile a function that only other loops call, inlined where LLVM sees fit."""
    return cast(F, _JIT()(function))


def apart(function: F) -> F:
    """Compile a function that only other loops call, and that never becomes a part of them.

    Numba's wrapper for callers from C is a second caller, so LLVM does not inline the function.
    """
    return cast(F, _JIT(no_cfunc_wrapper=False)(function))


def compiled(function: F) -> F:
    """Compile a function that Python calls, at the first call.

    It runs without the interpreter's lock. The compiled code is stored for other processes if a folder can be written.
    """
    loop: Any = _JIT(no_cpython_wrapper=False)(function)
    loop._cache = _Caches(function)
    return cast(F, loop)


class _Caches:
    """A function's compiled code in all folders that may hold it; numba takes it for its own ``caching._Cache``."""

    def __init__(self, function: Any) -> None:
        written = writable_folder()
        self._written = _cache(function, written)
        self._read = [_cache(function, folder) for folder in code_folders() if folder != written]

    @property
    def cache_path(self) -> str | None:
        return None if self._written is None else str(self._written.cache_path)

    def load_overload(self, signature: Any, context: Any) -> Any:
        for cache in (self._written, *self._read):
            # A killed process or a full disk may leave a broken file, which raises any exception and is compiled again.
            with contextlib.suppress(Exception):
                overload = None if cache is None else cache.load_overload(signature, context)
                if overload is not None:
                    return overload
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
        # The source is in no file, or the user has numba look for sources elsewhere and they are not there.
        return None
