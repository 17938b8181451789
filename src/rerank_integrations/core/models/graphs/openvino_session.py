"""Graphs in OpenVINO."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rerank_integrations.core.models.graphs.session import Arrays, GraphSession, threads
from rerank_integrations.errors import InvalidInputError, MissingExtraError

# Activations that share a scale, in 8 bits: of one token, so that a score does not depend on the batch.
_GROUP = 64
# Weights worth rounding: below, the saving is nothing and the loss the same.
_LEAST = 4096


class OpenVINOSession(GraphSession):
    """A graph in OpenVINO; with 8-bit weights, all other products are in bfloat16 where the processor has it."""

    extra = "openvino"
    library = "openvino"
    filename = "model.xml"
    has_precisions = True

    def __init__(self, path: Path, dtype: str, callers: int = 1) -> None:
        openvino = _openvino()
        core = openvino.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if dtype == "bfloat16" and not native:
            raise InvalidInputError("dtype is 'bfloat16'; expected 'float32' or 'int8': this processor has no bfloat16")
        settings = {
            "NUM_STREAMS": callers,
            "INFERENCE_NUM_THREADS": threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if native and dtype != "float32" else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP if dtype == "int8" else 0,
        }
        self._compiled = core.compile_model(core.read_model(path), "CPU", settings)
        self._requests = threading.local()
        self.inputs = tuple(each.get_any_name() for each in self._compiled.inputs)

    @classmethod
    def write(cls, source: Path, folder: Path, *, int8: bool) -> None:
        """Write the graph; in 8 bits, the weights of every matrix product and embedding by rows."""
        openvino = _openvino()
        model = openvino.Core().read_model(source)
        if int8:
            _round_weights(openvino, model)
        openvino.save_model(model, folder / cls.filename, compress_to_fp16=False)

    def run(self, arrays: Arrays) -> Any:
        """Return the output in float32."""
        # One request a thread: a second run on a request that is at work would be refused.
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._compiled.create_infer_request()
        return request.infer(dict(arrays))[0]


def _openvino() -> Any:
    try:
        with _without_usage_reports():
            import openvino
    except ImportError as error:
        raise MissingExtraError(OpenVINOSession.extra, "backend='openvino'") from error
    return openvino


@contextlib.contextmanager
def _without_usage_reports() -> Iterator[None]:
    """Keep OpenVINO from loading the package by which it reports its use to its makers, over the network, at import.

    Who has imported that package before decides for themselves. OpenVINO takes its absence for granted.
    """
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    # What Python finds here as None cannot be imported.
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _round_weights(openvino: Any, model: Any) -> None:
    """Put 8-bit weights and a scale a row in place of float32 weights: OpenVINO multiplies such in 8 bits.

    What NNCF's ``compress_weights`` does in its mode INT8_SYM, without the library.
    """
    from openvino import opset13

    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind not in ("MatMul", "Gather"):
            continue
        place = 1 if kind == "MatMul" else 0
        constant = operation.input_value(place).get_node()
        if constant.get_type_name() != "Constant" or constant.get_element_type() != openvino.Type.f32:
            continue
        weights = constant.data
        if weights.ndim != 2 or weights.size < _LEAST:
            continue
        rows_are_outputs = kind == "Gather" or operation.get_attributes()["transpose_b"]
        if kind == "MatMul" and weights.shape[1 if rows_are_outputs else 0] % _GROUP:
            # A group of activations would be left incomplete. Where the processor has AMX, such products of the tests'
            # tiny checkpoints (48 and 96 wide) came out wrong, while those of whole groups (384, 1,536) were right.
            continue
        scale = np.abs(weights).max(axis=1 if rows_are_outputs else 0, keepdims=True) / np.float32(127)
        scale[scale == 0] = 1
        rounded = opset13.constant(np.rint(weights / scale).astype(np.int8))
        product = opset13.multiply(opset13.convert(rounded, "f32"), opset13.constant(scale))
        operation.input(place).replace_source_output(product.output(0))
    model.validate_nodes_and_infer_types()
