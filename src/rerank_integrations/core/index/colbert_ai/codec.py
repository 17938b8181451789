"""colbert-ai's compression of a token vector: its nearest centroid, and a few bits per dimension of the residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.maxsim import Floats
from rerank_integrations.errors import InvalidInputError, RerankError

# RAGatouille writes 8 for small collections, 4 and 2 for larger ones; colbert-ai's own default is 1.
NBITS = (1, 2, 4, 8)


@dataclass(frozen=True, eq=False)
class ColbertAICodec:
    """Codec of colbert-ai, by which a vector is ``normalise(centroids[code] + weights of the residual)``.

    Parameters
    ----------
    nbits
        Bits per dimension of a residual: 1, 2, 4 or 8.
    centroids
        Float32, *Shape:* (centroids, dim). colbert-ai stores them as float16, so round those of a codec that is to be
        written (``astype(np.float16)``) before computing residuals.
    bucket_weights
        Float32, *Shape:* (2**nbits,): the value that each bucket number stands for.
    bucket_cutoffs
        Float32, *Shape:* (2**nbits - 1,), ascending: a value's bucket number is how many of them are less than it.
    avg_residual
        Mean absolute residual; colbert-ai stores it and uses it nowhere.
    """

    nbits: int
    centroids: Floats
    bucket_weights: Floats
    bucket_cutoffs: Floats
    avg_residual: float

    @property
    def dim(self) -> int:
        """The number of dimensions of a vector."""
        return int(self.centroids.shape[1])

    @property
    def residual_bytes(self) -> int:
        """The number of bytes of a packed residual."""
        return self.dim * self.nbits // 8


def codebook(bucket_weights: Floats, nbits: int) -> Floats:
    """Return the values that each byte of a packed residual stands for, in the order of the dimensions.

    Parameters
    ----------
    bucket_weights
        *Shape:* (2**nbits,).
    nbits
        1, 2, 4 or 8.

    Returns
    -------
    array
        Float32, *Shape:* (256, 8 // nbits). A whole residual is ``codebook[packed].reshape(tokens, dim)``.
    """
    return np.asarray(bucket_weights, np.float32)[_bucket_numbers(nbits)]


def pack(levels: NDArray[np.uint8], nbits: int) -> NDArray[np.uint8]:
    """Pack bucket numbers as colbert-ai does: first dimension in the highest bits, each number with its bits reversed.

    Parameters
    ----------
    levels
        Bucket numbers below ``2**nbits``, *Shape:* (tokens, dim).
    nbits
        1, 2, 4 or 8.

    Returns
    -------
    array
        Uint8, *Shape:* (tokens, dim * nbits // 8).

    Raises
    ------
    InvalidInputError
        If `levels` has another shape or dtype, holds larger numbers, or rows that do not fill bytes.
    """
    require_nbits(nbits, "nbits", InvalidInputError)
    per_byte = 8 // nbits
    if levels.dtype != np.uint8 or levels.ndim != 2 or levels.shape[1] % per_byte:
        raise InvalidInputError(
            f"bucket numbers are {levels.dtype} of shape {levels.shape}; "
            f"expected uint8 of (tokens, multiple of {per_byte})"
        )
    if levels.size and levels.max() >> nbits:
        raise InvalidInputError(f"a bucket number is {levels.max()}; expected less than {1 << nbits}")
    reverse = _reversed_bits(nbits)
    packed = np.zeros((len(levels), levels.shape[1] // per_byte), np.uint8)
    for position in range(per_byte):
        packed |= reverse[levels[:, position::per_byte]] << (8 - nbits * (position + 1))
    return packed


def quantile_buckets(residual_sample: Floats, nbits: int) -> tuple[Floats, Floats]:
    """Return the cutoffs and weights that colbert-ai takes from a sample of residuals: quantiles of all its values.

    Parameters
    ----------
    residual_sample
        Residuals of held-out tokens, any shape, at least one value. colbert-ai takes 5 % of its training sample, at
        most 50,000 tokens.
    nbits
        1, 2, 4 or 8.

    Returns
    -------
    cutoffs, weights
        Float32, *Shape:* (2**nbits - 1,) and (2**nbits,).
    """
    require_nbits(nbits, "nbits", InvalidInputError)
    if residual_sample.size == 0 or not np.isfinite(residual_sample).all():
        raise InvalidInputError(
            f"a residual sample of shape {residual_sample.shape} is empty or not finite; expected finite values"
        )
    levels = 1 << nbits
    starts = np.arange(levels) / levels
    values = residual_sample.astype(np.float32).ravel()
    quantiles = np.quantile(values, np.concatenate([starts[1:], starts + 0.5 / levels])).astype(np.float32)
    return quantiles[: levels - 1], quantiles[levels - 1 :]


def require_nbits(nbits: Any, what: str, error: type[RerankError]) -> None:
    """Raise `error` unless `nbits` is a number of bits that colbert-ai packs."""
    if type(nbits) is not int or nbits not in NBITS:
        raise error(f"{what} is {nbits!r}; expected one of {', '.join(map(str, NBITS))}")


def require_dim(dim: int, nbits: int, what: str, error: type[RerankError]) -> None:
    """Raise `error` unless colbert-ai can pack vectors of `dim` dimensions."""
    if dim < 1 or dim % (8 * nbits):
        raise error(f"{what} is {dim}; with nbits={nbits} colbert-ai packs a multiple of {8 * nbits} only")


def require_array(
    array: NDArray[Any],
    what: str,
    dtypes: tuple[type[np.generic], ...],
    shape: tuple[int | str, ...],
    error: type[RerankError],
) -> None:
    """Raise `error` unless `array` is of one of `dtypes`, has `shape` (a string is any length) and is finite."""
    if (
        array.dtype not in [np.dtype(dtype) for dtype in dtypes]
        or array.ndim != len(shape)
        or any(isinstance(wanted, int) and wanted != length for wanted, length in zip(shape, array.shape, strict=True))
    ):
        names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        wanted_shape = "(" + ", ".join(map(str, shape)) + ")"
        raise error(f"{what} is {array.dtype} of shape {array.shape}; expected {names} of {wanted_shape}")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise error(f"{what} holds NaN or infinite numbers; expected finite ones")


def require_codec(codec: ColbertAICodec, names: dict[str, str], error: type[RerankError]) -> None:
    """Raise `error` unless the parts of `codec` fit together; `names` has the name of each field for the message."""
    require_nbits(codec.nbits, names["nbits"], error)
    levels = 1 << codec.nbits
    require_array(codec.centroids, names["centroids"], (np.float32,), ("centroids", "dim"), error)
    if len(codec.centroids) == 0:
        raise error(f"{names['centroids']} is empty; expected at least one centroid")
    require_dim(codec.dim, codec.nbits, names["dim"], error)
    require_array(codec.bucket_weights, names["bucket_weights"], (np.float32,), (levels,), error)
    require_array(codec.bucket_cutoffs, names["bucket_cutoffs"], (np.float32,), (levels - 1,), error)
    if (np.diff(codec.bucket_cutoffs) < 0).any():
        raise error(f"{names['bucket_cutoffs']} descends; expected ascending numbers")
    if not np.isfinite(codec.avg_residual):
        raise error(f"{names['avg_residual']} is {codec.avg_residual}; expected a finite number")


def require_tokens(
    codec: ColbertAICodec, codes: NDArray[Any], residuals: NDArray[Any], names: dict[str, str], error: type[RerankError]
) -> None:
    """Raise `error` unless `codes` and `residuals` are tokens of `codec`."""
    require_array(codes, names["codes"], (np.int32,), ("tokens",), error)
    require_array(residuals, names["residuals"], (np.uint8,), (len(codes), codec.residual_bytes), error)
    if len(codes) and (codes.min() < 0 or codes.max() >= len(codec.centroids)):
        raise error(
            f"{names['codes']} holds codes from {codes.min()} to {codes.max()}; "
            f"expected 0 to {len(codec.centroids) - 1}, the centroids there are"
        )


def _reversed_bits(nbits: int) -> NDArray[np.uint8]:
    numbers = np.arange(1 << nbits)
    bits = (numbers[:, None] >> np.arange(nbits)) & 1
    reversed_bits: NDArray[np.uint8] = (bits @ (1 << np.arange(nbits)[::-1])).astype(np.uint8)
    return reversed_bits


def _bucket_numbers(nbits: int) -> NDArray[np.uint8]:
    require_nbits(nbits, "nbits", InvalidInputError)
    shifts = np.arange(8 - nbits, -1, -nbits)
    groups = (np.arange(256)[:, None] >> shifts) & ((1 << nbits) - 1)
    numbers: NDArray[np.uint8] = _reversed_bits(nbits)[groups]
    return numbers
