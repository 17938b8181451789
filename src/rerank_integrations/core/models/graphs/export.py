"""An encoder out of torch, into an ONNX file."""

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
    """The forward pass as a function of tensors alone."""

    def __init__(self, transformer: Transformer, names: list[str]) -> None:
        super().__init__()
        self.transformer, self.names = transformer, names

    def forward(self, *tensors: Tensor) -> Tensor:
        features = dict(zip(self.names, tensors, strict=True))
        with _MaskedRowsAreZero():
            output: Tensor = self.transformer(features)[self.transformer.module_output_name]
        return output


class _MaskedRowsAreZero(TorchFunctionMode):
    """Writes out what torch does where a token may attend to none: its attention is zero, in a graph it is a mean.

    Such are the [MASK] tokens of an expanded query that no window of local attention joins to its words.
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
    """Write the forward pass of `transformer`, weights in a file beside; both dimensions of each input are free.

    Parameters
    ----------
    inputs
        An example with padding in it: what its shape or its values alone decide would be fixed in the graph.

    Raises
    ------
    ImportError
        If what torch exports with is not installed.
    """
    # By name: torch reports an absent one as an error of the export.
    import onnx  # noqa: F401
    import onnxscript  # noqa: F401

    free = torch.export.Dim.DYNAMIC
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            _Encoder(transformer, list(inputs)).eval(),
            tuple(inputs.values()),
            dynamo=True,
            # The one parameter of its forward takes them all.
            dynamic_shapes=(tuple({0: free, 1: free} for _ in inputs),),
            input_names=list(inputs),
            output_names=["output"],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    for node in program.model.graph.all_nodes():
        # Where in which source file of this machine it comes from.
        node.metadata_props.clear()
    program.save(str(path), external_data=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # It names every operator of libraries that are not installed, and what it deprecates in itself.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
