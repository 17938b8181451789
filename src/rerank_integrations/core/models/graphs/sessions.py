"""Sessions that run an encoder's graph: the interface, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_integrations.errors import InvalidInputError, MissingExtraError

# The number of 8-bit activations that share a scale: all of one token, so that a score does not depend on the batch.
_GROUP_SIZE = 64
# Smaller matrices are not rounded: they save nothing, and rounding loses as much.
_MIN_WEIGHTS = 4096

Arrays: TypeAlias = Mapping[str, "npt.NDArray[np.int64]"]
Floats: TypeAlias = "npt.NDArray[np.float32]"


class GraphSession(ABC):
    """A graph that is ready to run; any number of threads may run it.

    Parameters
    ----------
    path
        The graph: a file from `write`, or an ONNX file in float32.
    dtype
        The number format to compute in, as the user names it.
    callers
        How many threads run it at the same time; each gets its share of the cores.

    Raises
    ------
    InvalidInputError
        If this processor does not compute in `dtype`.
    """

    extra: ClassVar[str]
    """The extra that installs the library, which is also the name of the backend."""
    library: ClassVar[str]
    """The package whose version is part of the graph's name."""
    filename: ClassVar[str]
    """The name of the file from `write`; there may be others beside it."""
    has_precisions: ClassVar[bool]
    """True if a graph with weights of any format can also be computed in float32."""

    inputs: tuple[str, ...]
    """The names of the inputs, each int64, *Shape:* (texts, tokens)."""

    @abstractmethod
    def __init__(self, path: Path, dtype: str, callers: int = 1) -> None: ...

    @classmethod
    @abstractmethod
    def write(cls, source: Path, folder: Path, *, int8: bool) -> None:
        """Write the graph into `folder` from an ONNX file in float32, with 8-bit weights if `int8`."""

    @abstractmethod
    def run(self, arrays: Arrays) -> Floats:
        """Return the output in float32, in an array that belongs to the caller."""


def threads() -> int:
    """Return how many threads a graph uses: like torch, the physical cores that this process may use."""
    import torch

    return torch.get_num_threads()


class OnnxSession(GraphSession):
    """A graph in ONNX Runtime; in 8 bits, a matrix product has one scale for all activations of a batch."""

    extra = "onnx"
    library = "onnxruntime"
    filename = "model.onnx"
    has_precisions = False

    def __init__(self, path: Path, dtype: str, callers: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(self.extra, "backend='onnx'") from error
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = max(1, threads() // callers)
        # Warnings only report folded constants; errors are raised.
        settings.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self.inputs: tuple[str, ...] = tuple(node.name for node in self._session.get_inputs())

    @classmethod
    def write(cls, source: Path, folder: Path, *, int8: bool) -> None:
        """Write the graph; in 8 bits, the weights of every matrix product by columns."""
        if not int8:
            shutil.copytree(source.parent, folder, dirs_exist_ok=True)
            return
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        model = onnx.load(str(source))
        # The exporter has inferred the shapes; without this mark the quantizer advises to do it.
        model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        with _unlogged():
            quantize_dynamic(
                model,
                str(folder / cls.filename),
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=True,
            )

    def run(self, arrays: Arrays) -> Floats:
        """Return the output in float32."""
        output: Floats = self._session.run(None, dict(arrays))[0]
        return output


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    # The quantizer logs every tensor through functions of `logging` that configure the root logger if nobody has.
    root = logging.getLogger()
    handler, level = logging.NullHandler(), root.level
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


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
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP_SIZE if dtype == "int8" else 0,
        }
        self._compiled = core.compile_model(core.read_model(path), "CPU", settings)
        self._requests = threading.local()
        self.inputs: tuple[str, ...] = tuple(node.get_any_name() for node in self._compiled.inputs)

    @classmethod
    def write(cls, source: Path, folder: Path, *, int8: bool) -> None:
        """Write the graph; in 8 bits, the weights of every matrix product and embedding by rows."""
        openvino = _openvino()
        model = openvino.Core().read_model(source)
        if int8:
            _round_weights(openvino, model)
        openvino.save_model(model, folder / cls.filename, compress_to_fp16=False)

    def run(self, arrays: Arrays) -> Floats:
        """Return the output in float32."""
        # One request per thread: a request that is running refuses a second run.
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._compiled.create_infer_request()
        output: Floats = request.infer(dict(arrays))[0]
        return output


def _openvino() -> Any:
    try:
        with _without_usage_reports():
            import openvino
    except ImportError as error:
        raise MissingExtraError(OpenVINOSession.extra, "backend='openvino'") from error
    return openvino


@contextlib.contextmanager
def _without_usage_reports() -> Iterator[None]:
    """Keep OpenVINO's import from loading the package that reports its use to its makers over the network.

    If that package is already imported, it stays. OpenVINO works without it.
    """
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    # A module that is None here cannot be imported.
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _round_weights(openvino: Any, model: Any) -> None:
    """Replace float32 weights by 8-bit weights with a scale per row, which OpenVINO multiplies in 8 bits.

    NNCF's ``compress_weights`` does the same in its mode INT8_SYM; this needs no such library.
    """
    from openvino import opset13

    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind not in ("MatMul", "Gather"):
            continue
        operand = 1 if kind == "MatMul" else 0
        constant = operation.input_value(operand).get_node()
        if constant.get_type_name() != "Constant" or constant.get_element_type() != openvino.Type.f32:
            continue
        weights = constant.data
        if weights.ndim != 2 or weights.size < _MIN_WEIGHTS:
            continue
        rows_are_outputs = kind == "Gather" or operation.get_attributes()["transpose_b"]
        if kind == "MatMul" and weights.shape[1 if rows_are_outputs else 0] % _GROUP_SIZE:
            # A group of activations would be incomplete. On processors with AMX, such products of the tests' tiny
            # checkpoints (48 and 96 wide) were wrong, while those of whole groups (384, 1,536) were right.
            continue
        scale = np.abs(weights).max(axis=1 if rows_are_outputs else 0, keepdims=True) / np.float32(127)
        scale[scale == 0] = 1
        rounded = opset13.constant(np.rint(weights / scale).astype(np.int8))
        product = opset13.multiply(opset13.convert(rounded, "f32"), opset13.constant(scale))
        operation.input(operand).replace_source_output(product.output(0))
    model.validate_nodes_and_infer_types()
