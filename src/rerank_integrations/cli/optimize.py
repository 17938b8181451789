"""``rerank-integrations optimize``: a model converted for a faster backend, before it is needed."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from rerank_integrations.cli.output import working, write_json, write_table
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel


class Kind(str, Enum):
    """The kinds of model."""

    COLBERT = "colbert"
    CROSS_ENCODER = "cross-encoder"


class Backend(str, Enum):
    """The backends that need a graph."""

    ONNX = "onnx"
    OPENVINO = "openvino"


class Dtype(str, Enum):
    """What a graph is stored in; OpenVINO computes in bfloat16 from float32."""

    INT8 = "int8"
    FLOAT32 = "float32"


def optimize(
    model: Annotated[str, typer.Argument(help="The checkpoint: name or path, or 'starter'.")],
    kind: Annotated[Kind, typer.Option(help="What it is.")],
    backend: Annotated[Backend, typer.Option(help="What is to run it.")] = Backend.OPENVINO,
    dtype: Annotated[Dtype, typer.Option(help="8-bit weights, or as exact as torch.")] = Dtype.INT8,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the code that comes with the checkpoint.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Convert a model for a faster backend on the CPU, and show how far its scores are from torch's."""
    from rerank_integrations.evaluation.fidelity import PASSAGES, QUERIES, measure_fidelity

    model_class = ColBERTModel if kind is Kind.COLBERT else CrossEncoderModel
    loaded = model_class(
        model, device="cpu", backend=backend.value, dtype=dtype.value, trust_remote_code=trust_remote_code
    )
    with working(f"converting {model} for {backend.value}"):
        result = measure_fidelity(loaded)
    asked = {"model": model, "kind": kind.value, "backend": backend.value, "dtype": dtype.value}
    if as_json:
        compared = {
            "pairs": len(QUERIES) * len(PASSAGES),
            "largest_difference": result.largest_difference,
            "largest_score": result.largest_score,
            "same_order": result.same_order,
        }
        write_json({**asked, "path": str(result.path), "bytes": result.size, "against_torch_float32": compared})
        return
    rows = {
        "kept in": str(result.path),
        "megabytes": result.size / 1e6,
        "largest difference of a score": f"{result.largest_difference:.4f} (scores up to {result.largest_score:.2f})",
        "passages in the same order": f"{result.same_order:.1%} of pairs",
    }
    write_table(rows, title=f"{model} for {backend.value}, {dtype.value}, beside torch in float32")
