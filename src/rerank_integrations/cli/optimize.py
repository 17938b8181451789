"""``rerank-integrations optimize``: convert a model for a faster backend before it is needed."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from rerank_integrations.cli.options import AsJson, ModelKind, TrustRemoteCode
from rerank_integrations.cli.output import spinner, write_json, write_table
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel


class Backend(str, Enum):
    """The backends that need a converted model."""

    ONNX = "onnx"
    OPENVINO = "openvino"


class Dtype(str, Enum):
    """The number formats of a converted model; OpenVINO computes in bfloat16 from float32."""

    INT8 = "int8"
    FLOAT32 = "float32"


def optimize(
    model: Annotated[str, typer.Argument(help="Checkpoint name or path, or 'starter'.")],
    kind: Annotated[ModelKind, typer.Option(help="Kind of the model.")],
    backend: Annotated[Backend, typer.Option(help="Backend that will run the model.")] = Backend.OPENVINO,
    dtype: Annotated[
        Dtype, typer.Option(help="Number format: int8 has 8-bit weights, float32 is as exact as torch.")
    ] = Dtype.INT8,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Convert a model for a faster backend on the CPU, and show how far its scores are from torch's."""
    from rerank_integrations.evaluation.fidelity import PASSAGES, QUERIES, measure_fidelity

    model_class = ColBERTModel if kind is ModelKind.COLBERT else CrossEncoderModel
    loaded = model_class(
        model, device="cpu", backend=backend.value, dtype=dtype.value, trust_remote_code=trust_remote_code
    )
    with spinner(f"converting {model} for {backend.value}"):
        result = measure_fidelity(loaded)
    if as_json:
        settings = {"model": model, "kind": kind.value, "backend": backend.value, "dtype": dtype.value}
        difference = {
            "pairs": len(QUERIES) * len(PASSAGES),
            "largest_difference": result.largest_difference,
            "largest_score": result.largest_score,
            "same_order": result.same_order,
        }
        write_json({**settings, "path": str(result.path), "bytes": result.size, "against_torch_float32": difference})
        return
    rows = {
        "stored in": str(result.path),
        "megabytes": result.size / 1e6,
        "largest difference of a score": f"{result.largest_difference:.4f} (scores up to {result.largest_score:.2f})",
        "passages in the same order": f"{result.same_order:.1%} of pairs",
    }
    write_table(rows, title=f"{model} for {backend.value}, {dtype.value}, beside torch in float32")
