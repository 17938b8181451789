"""Program of the process that compiles the loops: it calls each loop once, on a few vectors, as an index would.

`warming` starts it with the parent's search path.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading

from rerank_integrations.core.index.plaid.code_folder import is_complete, mark_complete, writable_folder
from rerank_integrations.core.index.plaid.warming import mark_ready

_DIM = 16
_PASSAGES = 4


def main() -> None:
    """Compile for the bits per dimension that the command line names, and wait, if it says so, while others compile."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    nbits, waits = int(sys.argv[1]), sys.argv[2] == "wait"
    # The loops are loaded here without asking for another child.
    mark_ready(nbits)
    if not waits and hasattr(os, "nice"):
        os.nice(5)
    folder = writable_folder()
    if folder is None:
        raise SystemExit("no folder for compiled code can be written")
    from filelock import FileLock, Timeout

    # The lock is this process's own: nobody inherits it, and it ends with it.
    with contextlib.suppress(Timeout), FileLock(folder / "compiling.lock", timeout=-1 if waits else 0):
        if not is_complete(nbits):
            # Numba makes objects by the million: looking for circles among them takes a tenth of the time.
            gc.disable()
            rehearse(nbits)
            mark_complete(folder, nbits)


def rehearse(nbits: int) -> None:
    """Compile every loop that an index with this many bits per dimension needs, or load it from the cache."""
    # A process that finds another one compiling ends without these imports, which load numba.
    import numpy as np

    from rerank_integrations.core.index.plaid.compression import encode, random_rotation
    from rerank_integrations.core.index.plaid.cpu_query import CpuQuery
    from rerank_integrations.core.index.storage.codecs import Codec
    from rerank_integrations.core.index.storage.segments import Group, Part, PlaidSegment

    random = np.random.default_rng(0)
    vectors = random.standard_normal((_PASSAGES, _DIM)).astype(np.float32)
    codebook = random.standard_normal((256, 8 // nbits)).astype(np.float32)
    codec = Codec("", vectors.copy(), codebook, random_rotation(_DIM, _DIM), 0.01, whole=False, tokens=_PASSAGES)
    codes = encode(codec, vectors)
    ordinals = np.arange(_PASSAGES, dtype=np.int32)
    offsets = np.arange(_PASSAGES + 1, dtype=np.int64)
    segment = PlaidSegment("", "", codes.centroids, codes.residuals, codes.scales, offsets, None, None)
    group = Group(codec, (Part(segment, ordinals.astype(np.int64), ordinals, _PASSAGES),))
    query = CpuQuery(codec, vectors)
    (finalists,) = query.finalists(group, 1, 2, 1)
    query.scores(segment, finalists)


def _exit_with_parent() -> None:
    # Not `sys.stdin`, whose lock this thread would still hold when the interpreter ends.
    while os.read(0, 1):
        pass
    os._exit(1)
