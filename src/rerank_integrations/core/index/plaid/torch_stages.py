"""The stages of PLAID search as torch operations, for an index whose model runs on a GPU.

They compute what the numba stages do, and agree with them within rounding. Everything is float32 whatever the process
has set: no autocast, and float64 products where it has allowed TF32. An uploaded segment stays on the device while it
is open: 40 bytes per token at 2 bits and 128 dimensions.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding_bag

from rerank_integrations.core.index.plaid.centroid_kernels import mark_listed
from rerank_integrations.core.index.storage.codecs import Codec
from rerank_integrations.core.index.storage.segments import Group, Ordinals, Part, PlaidSegment
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.ranking import score_of_best

DEFAULT_BLOCK_BYTES = 1 << 28
_UPLOADED_ROWS = 1 << 20
# The share of a device's memory that is left to the model.
_RESERVED_SHARE = 0.25

K = TypeVar("K", Codec, PlaidSegment)
V = TypeVar("V")


class TorchQuery:
    """A query's tables for one codec, on a device.

    A passage's score depends on its codes and the query. The passages beside it change it by float32 rounding alone,
    since cuBLAS may add in another order for another number of rows. Any number of threads may have one each.

    Parameters
    ----------
    query
        Float32, *Shape:* (query tokens, dim).
    device
        ``"cuda"`` (the thread's current device) or any torch device. Its memory holds the codec's centroids in float32
        while the codec is open, and 4 bytes per centroid and query token while this lives.
    block_bytes
        About the memory that a stage takes while it runs, unless one passage alone takes more; three times that where
        TF32 is allowed.

    Raises
    ------
    torch.cuda.OutOfMemoryError
        By any method, if that does not fit in the device's memory, or the segment does not with a quarter to spare.
    IndexError
        By `approximate` and `scores`, if a segment names a centroid that the codec does not have.
    """

    def __init__(self, codec: Codec, query: Floats, device: str, *, block_bytes: int = DEFAULT_BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes
        self._device = _indexed(torch.device(device))
        self._count = len(query)
        self._step = float(np.float32(codec.step))
        self._whole = codec.whole
        with _plain(self._device):
            self._codec = _CODECS.get(codec, self._device)
            self._columns = torch.from_numpy(codec.rotate(query)).to(self._device).T
            # One row per centroid, as both stages look them up.
            self._scores = _product(self._codec.centroids, self._columns)

    def approximate(self, segment: PlaidSegment, ordinals: Ordinals) -> NDArray[np.float64]:
        """Score passages by their centroids, with scores below 0 as 0; a passage without tokens scores 0."""
        # Bytes per token, and per passage: codes, their numbers, and what `embedding_bag` stores for each query token.
        costs = 32, 12 * self._count + 64
        return self._in_blocks(segment, ordinals, costs, self._by_centroids)

    def finalists(self, group: Group, probes: int | None, candidates: int, finalists: int) -> list[Ordinals]:
        """Choose the passages whose MaxSim is worth computing: all the candidates, since it costs little here."""
        considered = [part.ordinals for part in group.parts]
        if probes is not None:
            marked = self.probed(probes)
            listed = [_listed(part, marked) for part in group.parts]
            # Where the lists name too few, all passages are considered.
            considered = listed if sum(map(len, listed)) >= candidates else considered
        scores = [
            self.approximate(part.segment, ordinals) for part, ordinals in zip(group.parts, considered, strict=True)
        ]
        bar = score_of_best(scores, candidates)
        return [ordinals[row >= bar] for ordinals, row in zip(considered, scores, strict=True)]

    def scores(self, segment: PlaidSegment, ordinals: Ordinals) -> NDArray[np.float64]:
        """Return the MaxSim of the passages' decompressed vectors; without tokens it is minus one per query token."""
        residual_bytes = segment.residuals.shape[1]
        costs = 32 + 5 * residual_bytes + 4 * self._columns.shape[0] + 12 * self._count, 16 * self._count + 64
        return self._in_blocks(segment, ordinals, costs, self._decompressed)

    def probed(self, count: int) -> NDArray[np.uint8]:
        """Mark the `count` best centroids of each query token, uint8, *Shape:* (centroids,)."""
        centroids = len(self._scores)
        with _plain(self._device):
            best = torch.topk(self._scores, min(count, centroids), dim=0, sorted=False).indices
            chosen = torch.zeros(centroids, dtype=torch.uint8, device=self._device)
            chosen[best.reshape(-1)] = 1
            return _numpy(chosen)

    def _in_blocks(
        self,
        segment: PlaidSegment,
        ordinals: Ordinals,
        costs: tuple[int, int],
        score: Callable[[_Uploaded, _Rows], torch.Tensor],
    ) -> NDArray[np.float64]:
        out = np.zeros(len(ordinals), dtype=np.float64)
        if not len(ordinals) or not self._count:
            return out
        lengths = segment.offsets[ordinals + 1] - segment.offsets[ordinals]
        with _plain(self._device):
            uploaded = _SEGMENTS.get(segment, self._device)
            if uploaded.highest >= len(self._scores):
                # Checked before the look-up: one out of range would end CUDA for the whole process.
                raise IndexError(f"centroid {uploaded.highest} of {len(self._scores)} in segment {segment.name}")
            for block in _blocks(lengths * costs[0] + costs[1], self._block_bytes):
                rows = _rows(segment, uploaded, ordinals[block], int(lengths[block].sum()))
                out[block] = _numpy(score(uploaded, rows))
        return out

    def _by_centroids(self, uploaded: _Uploaded, rows: _Rows) -> torch.Tensor:
        best = _maxima(self._scores, uploaded.codes[rows.tokens], rows.bounds)
        return best.clamp_(min=0).sum(dim=1, dtype=torch.float64)

    def _decompressed(self, uploaded: _Uploaded, rows: _Rows) -> torch.Tensor:
        residuals = uploaded.residuals[rows.tokens]
        # Converted to int32, since torch takes bytes for a mask.
        codewords = self._codec.codebook.index_select(0, residuals.reshape(-1).int())
        values = _product(codewords.view(len(residuals), self._columns.shape[0]), self._columns)
        scales = (uploaded.scales[rows.tokens] * self._step)[:, None]
        centres = self._scores.index_select(0, uploaded.codes[rows.tokens])
        values = values.add_(centres).mul_(scales) if self._whole else values.mul_(scales).add_(centres)
        all_rows = torch.arange(len(values), dtype=torch.int32, device=self._device)
        best = _maxima(values, all_rows, rows.bounds)
        best[rows.bounds.diff() == 0] = -1
        return best.sum(dim=1, dtype=torch.float64)


def _listed(part: Part[PlaidSegment], chosen: NDArray[np.uint8]) -> Ordinals:
    """Return the passages of a part that the lists of the chosen centroids name; all of a part without lists."""
    segment = part.segment
    if segment.list_starts is None or segment.listed is None:
        return part.ordinals
    marks = np.zeros(len(segment.offsets) - 1, dtype=np.uint8)
    mark_listed(chosen, segment.list_starts, segment.listed, marks)
    listed: Ordinals = part.ordinals[marks[part.ordinals] != 0]
    return listed


@dataclass(frozen=True)
class _Tables:
    """A codec on a device."""

    centroids: torch.Tensor
    codebook: torch.Tensor


@dataclass(frozen=True)
class _Uploaded:
    """A segment on a device, its arrays converted to types that torch computes with."""

    codes: torch.Tensor
    residuals: torch.Tensor
    scales: torch.Tensor
    offsets: torch.Tensor
    highest: int


@dataclass(frozen=True)
class _Rows:
    """Consecutive passages: their tokens in the segment, and int32 bounds between them, from 0."""

    tokens: slice | torch.Tensor
    bounds: torch.Tensor


class Uploads(Generic[K, V]):
    """Uploaded copies of objects by device, which live as long as the objects."""

    def __init__(self, upload: Callable[[K, torch.device], V]) -> None:
        self._upload: Callable[[K, torch.device], V] = upload
        self._copies: weakref.WeakKeyDictionary[K, dict[torch.device, V]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(self, key: K, device: torch.device) -> V:
        """Return the copy on a device, uploading it the first time; other threads wait meanwhile."""
        with self._lock:
            copies = self._copies.setdefault(key, {})
            if device not in copies:
                copies[device] = self._upload(key, device)
            return copies[device]


def _tables(codec: Codec, device: torch.device) -> _Tables:
    return _Tables(_put(codec.centroids, np.float32, device), _put(codec.codebook, np.float32, device))


def _segment(segment: PlaidSegment, device: torch.device) -> _Uploaded:
    _require_room(segment, device)
    return _Uploaded(
        _put(segment.codes, np.int32, device),
        _put(segment.residuals, np.uint8, device),
        _put(segment.scales, np.float32, device),
        _put(segment.offsets, np.int64, device),
        int(segment.codes.max(initial=0)),
    )


_CODECS: Uploads[Codec, _Tables] = Uploads(_tables)
_SEGMENTS: Uploads[PlaidSegment, _Uploaded] = Uploads(_segment)


def _require_room(segment: PlaidSegment, device: torch.device) -> None:
    if device.type != "cuda":
        return
    needed = segment.residuals.nbytes + 8 * len(segment.codes) + segment.offsets.nbytes
    free, total = torch.cuda.mem_get_info(device)
    # Torch reserves memory that nothing uses any more.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if free - needed < _RESERVED_SHARE * total:
        raise torch.cuda.OutOfMemoryError(
            f"segment {segment.name} takes {needed} bytes on {device}, which has {free} free of {total}; "
            f"expected {_RESERVED_SHARE:.0%} to remain"
        )


def _put(array: NDArray[Any], dtype: type[np.generic], device: torch.device) -> torch.Tensor:
    kind = torch.from_numpy(np.empty(0, dtype=dtype)).dtype
    tensor = torch.empty(array.shape, dtype=kind, device=device)
    for start in range(0, len(array), _UPLOADED_ROWS):
        rows = slice(start, start + _UPLOADED_ROWS)
        # A copy, since the memory map is read-only, and bytes are the only unsigned numbers that torch computes with.
        tensor[rows] = torch.from_numpy(np.array(array[rows], dtype=dtype))
    return tensor


def _indexed(device: torch.device) -> torch.device:
    # "cuda" means a different device in each thread that has chosen one.
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


@contextlib.contextmanager
def _plain(device: torch.device) -> Iterator[None]:
    # The calling thread may have autocast on.
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    matmul = torch.backends.cuda.matmul
    # The newer of torch's two settings: reading the older one raises where both were used.
    precision = getattr(matmul, "fp32_precision", None)
    allowed = matmul.allow_tf32 if precision is None else precision == "tf32"
    # TF32 has 10 bits, which are too few. The setting belongs to the whole process, so it is left alone.
    return (left.double() @ right.double()).float() if allowed else left @ right


def _maxima(table: torch.Tensor, rows: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    # One kernel for the look-up and the maximum per segment, without atomics; a segment of no rows gets zeros.
    if not len(rows):
        return table.new_zeros(len(bounds) - 1, table.shape[1])
    return embedding_bag(rows, table, bounds, mode="max", include_last_offset=True)


def _rows(segment: PlaidSegment, uploaded: _Uploaded, ordinals: Ordinals, total: int) -> _Rows:
    device = uploaded.offsets.device
    numbers = torch.from_numpy(ordinals.astype(np.int64)).to(device)
    starts = uploaded.offsets[numbers]
    lengths = uploaded.offsets[numbers + 1] - starts
    bounds = torch.zeros(len(ordinals) + 1, dtype=torch.int32, device=device)
    bounds[1:] = lengths.cumsum(0)
    if (np.diff(ordinals) == 1).all():
        first = int(segment.offsets[ordinals[0]])
        return _Rows(slice(first, first + total), bounds)
    shifts = torch.repeat_interleave(starts - bounds[:-1], lengths, output_size=total)
    return _Rows(shifts.add_(torch.arange(total, device=device)), bounds)


def _blocks(costs: NDArray[np.int64], max_cost: int) -> Iterator[slice]:
    ends = np.cumsum(costs)
    start = 0
    while start < len(costs):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + max_cost, side="right")))
        yield slice(start, end)
        start = end


def _numpy(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array
