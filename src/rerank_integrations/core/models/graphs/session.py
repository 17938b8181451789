"""What every runtime of graphs has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

Arrays: TypeAlias = Mapping[str, "npt.NDArray[np.int64]"]


class GraphSession(ABC):
    """A graph that is ready to run; any number of threads may run it.

    Parameters
    ----------
    path
        The graph: what `write` wrote, or an ONNX file in float32.
    dtype
        What to compute in, as the user names it.
    callers
        How many threads run it at once; each gets its share of the cores.

    Raises
    ------
    InvalidInputError
        If this processor does not compute in `dtype`.
    """

    extra: ClassVar[str]
    """The extra that brings the library, and the name of the backend."""
    library: ClassVar[str]
    """The distribution whose version the graph depends on."""
    filename: ClassVar[str]
    """The file that `write` writes; others may lie beside it."""
    has_precisions: ClassVar[bool]
    """Whether a graph, however its weights are stored, can also be computed in float32."""

    inputs: tuple[str, ...]
    """The names of the inputs, each int64, *Shape:* (texts, tokens)."""

    @abstractmethod
    def __init__(self, path: Path, dtype: str, callers: int = 1) -> None: ...

    @classmethod
    @abstractmethod
    def write(cls, source: Path, folder: Path, *, int8: bool) -> None:
        """Write the graph into `folder`, from an ONNX file in float32; with 8-bit weights if wanted."""

    @abstractmethod
    def run(self, arrays: Arrays) -> Any:
        """Return the output in float32, an array of the caller's own."""


def threads() -> int:
    """Return how many threads a graph computes with: as torch, the physical cores that this process may use."""
    import torch

    return torch.get_num_threads()
