"""Token vectors from an encoder, which may be a user's code: converted to float32 arrays, or refused by name."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rerank_integrations.core import telemetry
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.types import TokenEncoder
from rerank_integrations.errors import InvalidInputError

# Passages are stored as float16. A query's products with such numbers stay finite in float32 too.
_MAX_FLOAT16 = float(np.finfo(np.float16).max)


def encode_queries(model: TokenEncoder, queries: Sequence[str]) -> list[Floats]:
    """Return the token vectors of `queries`, checked as `encode_documents` checks its own."""
    with telemetry.encoding_by_other(model, "query", queries):
        return _checked(model.encode_queries(queries), queries, "query", model, finite=True)


def encoded_query(vectors: object, model: TokenEncoder) -> Floats:
    """Return the token vectors of a query that was encoded before, checked as those of `encode_queries`."""
    return _floats(vectors, _dim(model), "the query", finite=True)


def encode_documents(model: TokenEncoder, texts: Sequence[str], *, finite: bool = True) -> list[Floats]:
    """Return the token vectors of `texts`.

    Arrays and tensors of any real number format, on any device, and nested lists of numbers are converted.

    Parameters
    ----------
    finite
        Whether numbers that cannot be stored are refused; if not, they show in the scores.

    Returns
    -------
    list of numpy.ndarray
        One per text: float32, C-contiguous and writeable, *Shape:* (tokens, dim). A text may have no tokens.

    Raises
    ------
    InvalidInputError
        If the model returns another number of arrays, or an array of another shape, of other than real numbers, or with
        NaN, infinity or numbers beyond float16's.
    """
    with telemetry.encoding_by_other(model, "document", texts):
        return _checked(model.encode_documents(texts), texts, "text", model, finite)


def _checked(result: object, texts: Sequence[str], kind: str, model: TokenEncoder, finite: bool) -> list[Floats]:
    expected = f"for {len(texts)} {'queries' if kind == 'query' else 'texts'}"
    if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
        raise InvalidInputError(f"the model gave one {type(result).__name__} {expected}; expected a list of arrays")
    arrays = list(result)
    if len(arrays) != len(texts):
        raise InvalidInputError(f"the model gave {len(arrays)} arrays {expected}; expected one each")
    dim = _dim(model)
    return [_floats(array, dim, f"{kind} {number}", finite) for number, array in enumerate(arrays)]


def _floats(value: object, dim: int, text: str, finite: bool) -> Floats:
    array = _real_numbers(value, text)
    if array.shape == (0,):
        # An empty list stands for a text without tokens.
        array = array.reshape(0, dim)
    if array.ndim != 2 or array.shape[1] != dim:
        raise InvalidInputError(f"the model gave vectors of shape {array.shape} for {text}; expected (tokens, {dim})")
    if finite and not ((array >= -_MAX_FLOAT16) & (array <= _MAX_FLOAT16)).all():
        raise InvalidInputError(
            f"the model gave NaN, infinite or huge numbers for {text}; expected unit vectors (numbers of "
            f"{_MAX_FLOAT16:g} at most)"
        )
    return np.require(array, np.float32, ["C", "W"])


def _real_numbers(value: Any, text: str) -> np.ndarray[Any, Any]:
    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(value, torch.Tensor):
            # NumPy has no bfloat16, and reads neither other devices' memory nor a tensor that needs a gradient.
            value = value.detach().cpu()
            value = value.float().numpy() if value.is_floating_point() else value.numpy()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_array(value, text, str(error)) from error
    if array.dtype.kind not in "fiu":
        raise _no_array(value, text, f"its dtype is {array.dtype}")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise _no_array(value, text, "some of its numbers are masked")
    return array


def _no_array(value: object, text: str, reason: str) -> InvalidInputError:
    kind = type(value).__name__
    return InvalidInputError(f"the model gave a {kind} for {text} ({reason}); expected an array of real numbers")


def _dim(model: TokenEncoder) -> int:
    try:
        dim = operator.index(model.dim)
    except TypeError:
        dim = 0
    if dim < 1:
        raise InvalidInputError(f"the model's dim is {model.dim!r}; expected a whole number of at least 1")
    return dim
