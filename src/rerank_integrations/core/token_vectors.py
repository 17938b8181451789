"""Token vectors from an encoder, which may be anybody's code: converted to float32 arrays, or refused by name."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.types import TokenEncoder
from rerank_integrations.errors import InvalidInputError

# Passages are stored as float16. A query's products with such numbers stay finite in float32 too.
_LARGEST = float(np.finfo(np.float16).max)


def encode_queries(model: TokenEncoder, queries: Sequence[str]) -> list[Floats]:
    """Return the token vectors of `queries`, checked as `encode_documents` checks its own."""
    return _checked(model.encode_queries(queries), queries, "query", model, finite=True)


def encode_documents(model: TokenEncoder, texts: Sequence[str], *, finite: bool = True) -> list[Floats]:
    """Return the token vectors of `texts`.

    Arrays and tensors of any real number format, on any device, and nested lists of numbers are converted.

    Parameters
    ----------
    finite
        Whether numbers that cannot be stored are refused; else they are for the scores to show.

    Returns
    -------
    list of numpy.ndarray
        One per text: float32, C-contiguous and writeable, *Shape:* (tokens, dim). A text may have no tokens.

    Raises
    ------
    InvalidInputError
        If the model gives another number of arrays, or one that is not of that shape, is not of real numbers, or holds
        NaN, infinity or numbers beyond float16's.
    """
    return _checked(model.encode_documents(texts), texts, "text", model, finite)


def _checked(given: Any, texts: Sequence[str], what: str, model: TokenEncoder, finite: bool) -> list[Floats]:
    asked = f"for {len(texts)} {'queries' if what == 'query' else 'texts'}"
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidInputError(f"the model gave one {type(given).__name__} {asked}; expected a list of arrays")
    arrays = list(given)
    if len(arrays) != len(texts):
        raise InvalidInputError(f"the model gave {len(arrays)} arrays {asked}; expected one each")
    dim = _dim(model)
    return [_floats(array, dim, f"{what} {number}", finite) for number, array in enumerate(arrays)]


def _floats(given: Any, dim: int, what: str, finite: bool) -> Floats:
    array = _real_numbers(given, what)
    if array.shape == (0,):
        # An empty list, of a text without tokens.
        array = array.reshape(0, dim)
    if array.ndim != 2 or array.shape[1] != dim:
        raise InvalidInputError(f"the model gave vectors of shape {array.shape} for {what}; expected (tokens, {dim})")
    if finite and not ((array >= -_LARGEST) & (array <= _LARGEST)).all():
        raise InvalidInputError(
            f"the model gave NaN, infinite or huge numbers for {what}; expected unit vectors (numbers of {_LARGEST:g} "
            "at most)"
        )
    return np.require(array, np.float32, ["C", "W"])


def _real_numbers(given: Any, what: str) -> np.ndarray[Any, Any]:
    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(given, torch.Tensor):
            # NumPy has no bfloat16, and reads neither other devices' memory nor what a gradient is wanted of.
            given = given.detach().cpu()
            given = given.float().numpy() if given.is_floating_point() else given.numpy()
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_array(given, what, str(error)) from error
    if array.dtype.kind not in "fiu":
        raise _no_array(given, what, f"its dtype is {array.dtype}")
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise _no_array(given, what, "some of its numbers are masked")
    return array


def _no_array(given: Any, what: str, reason: str) -> InvalidInputError:
    kind = type(given).__name__
    return InvalidInputError(f"the model gave a {kind} for {what} ({reason}); expected an array of real numbers")


def _dim(model: TokenEncoder) -> int:
    try:
        dim = operator.index(model.dim)
    except TypeError:
        dim = 0
    if dim < 1:
        raise InvalidInputError(f"the model's dim is {model.dim!r}; expected a whole number of at least 1")
    return dim
