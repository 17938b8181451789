"""Graphs in ONNX Runtime."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rerank_integrations.core.models.graphs.session import Arrays, GraphSession, threads
from rerank_integrations.errors import MissingExtraError


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
        # Warnings tell of constants that were folded; errors are raised.
        settings.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self.inputs = tuple(each.name for each in self._session.get_inputs())

    @classmethod
    def write(cls, source: Path, folder: Path, *, int8: bool) -> None:
        """Write the graph; in 8 bits, the weights of every matrix product by columns."""
        if not int8:
            shutil.copytree(source.parent, folder, dirs_exist_ok=True)
            return
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        model = onnx.load(str(source))
        # The exporter has inferred the shapes; without this mark the quantizer logs advice to do it.
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

    def run(self, arrays: Arrays) -> Any:
        """Return the output in float32."""
        return self._session.run(None, dict(arrays))[0]


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    # The quantizer logs every tensor by the functions of `logging`, which set the root logger up if nobody has.
    root = logging.getLogger()
    handler, level = logging.NullHandler(), root.level
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
