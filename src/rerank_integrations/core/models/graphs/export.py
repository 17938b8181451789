"""Export of an encoder from torch into an ONNX file."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Transformer


class _Encoder(nn.Module):
    """The forward pass as a function whose arguments are all tensors."""

    def __init__(self, transformer: Transformer, names: list[str]) -> None:
        super().__init__()
        self.transformer, self.names = transformer, names

    def forward(self, *tensors: Tensor) -> Tensor:
        features = dict(zip(self.names, tensors, strict=True))
        with _MaskedRowsAreZero():
            output: Tensor = self.transformer(features)[self.transformer.module_output_name]
        return output


class _MaskedRowsAreZero(TorchFunctionMode):
    """Zero the attention of tokens that may attend to no token: torch does, but in a graph it would be a mean.

    Such tokens are the [MASK] of an expanded query that no window of local attention connects with its words.
    """

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        keywords = keywords or {}
        output = function(*arguments, **keywords)
        mask = keywords.get("attn_mask")
        if function is not nn.functional.scaled_dot_product_attention or mask is None or mask.dtype != torch.bool:
            return output
        return output * mask.any(dim=-1, keepdim=True)


def export_onnx(transformer: Transformer, inputs: Mapping[str, Tensor], path: Path) -> None:
    """Write the forward pass of `transformer` to `path`, and its weights into a file beside it.

    Both dimensions of each input are free.

    Parameters
    ----------
    inputs
        An example with padding: a branch that its shape or values decide would be fixed in the graph.

    Raises
    ------
    ImportError
        If the libraries that torch exports with are not installed.
    """
    # Imported here, since torch would report an absent library as an error of the export.
    import onnx  # noqa: F401
    import onnxscript  # noqa: F401

    free = torch.export.Dim.DYNAMIC
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            _Encoder(transformer, list(inputs)).eval(),
            tuple(inputs.values()),
            dynamo=True,
            # The forward pass has one variadic parameter for all inputs.
            dynamic_shapes=(tuple({0: free, 1: free} for _ in inputs),),
            input_names=list(inputs),
            output_names=["output"],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    for node in program.model.graph.all_nodes():
        # The metadata names source files of this machine.
        node.metadata_props.clear()
    program.save(str(path), external_data=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The exporter logs every operator of libraries that are not installed, and its own deprecations.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
