"""What loaded weights take, and giving it back to the operating system."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rerank_integrations.core.models.options import LoadOptions


class Weights(NamedTuple):
    """The number format of a loaded model's weights, their size in bytes, and what computes with them."""

    dtype: str
    bytes: int
    backend: str


def weights_of(model: Any, graph: Path | None, options: LoadOptions) -> Weights:
    """Return what the parameters and buffers of a torch module are and take, with the files of its `graph`."""
    held = [one for one in [*model.parameters(), *model.buffers()] if not one.is_meta]
    size = sum(one.numel() * one.element_size() for one in held)
    if graph is None:
        return Weights(str(options.resolved_dtype()).removeprefix("torch."), size, "torch")
    return Weights(options.dtype, size + sum(file.stat().st_size for file in graph.iterdir()), options.backend)


def give_back(device: str) -> None:
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
