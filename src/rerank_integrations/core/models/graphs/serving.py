"""The encoder of a loaded model, its forward pass done by a graph."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_integrations.core.concurrency.cores import side_by_side
from rerank_integrations.core.models.checkpoints.options import LoadOptions, ModelKind
from rerank_integrations.core.models.graphs.conversion import Features, Preprocess, kept_graph, session_kind
from rerank_integrations.core.models.graphs.probes import Probe, load_probes, relative_error
from rerank_integrations.core.models.graphs.sessions import GraphSession
from rerank_integrations.errors import FidelityWarning, RerankError, warn_user

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Transformer

# Largest relative error on the probes. In float32, sums in another order give some 1e-5; kernels that are wrong, 1.
_MAX_ERROR = 0.01
# In fewer bits. An error of a third of the spread leaves a correlation of 0.95 (1 / sqrt(1 + 1/9)) and nine of ten
# pairs of passages in torch's order (1/2 + arcsin(0.95) / pi). It follows from the spread of scores, not from any
# processor: sound graphs in 8 bits have errors of 0.03 to 0.15, and wrong kernels of 1 and more.
_MAX_ROUNDED_ERROR = 1 / 3


def serve_as_graph(
    options: LoadOptions, kind: ModelKind, transformer: Transformer, preprocess: Preprocess
) -> Path | None:
    """Let the graph of `transformer` do its forward pass, let go of its weights, and return the graph's folder.

    Tokenizer, lengths and configuration stay those of `transformer`, and what follows it stays in torch. Where the
    graph strays from torch on this processor, in float32 too, `transformer` stays as it is and ``None`` is returned.

    Parameters
    ----------
    kind
        ``"colbert"`` or ``"cross-encoder"``.
    transformer
        A `sentence_transformers.base.modules.Transformer` in float32 on the CPU.
    preprocess
        Returns what the forward pass takes for these texts, in each way that the model reads them, queries last; called
        if the graph must be made.

    Raises
    ------
    MissingExtraError
        If the library of ``options.backend`` is not installed.
    CheckpointError
        If the encoder does not convert.

    Warns
    -----
    FidelityWarning
        If the graph strays from torch, so that something slower computes in its place.
    """
    import torch

    session_class = session_kind(options)
    folder = kept_graph(options, kind, transformer, preprocess)
    callers = side_by_side() if kind == "cross-encoder" else 1
    open_session = functools.partial(session_class, folder / session_class.filename, callers=callers)
    first, dtype = faithful_session(options, open_session, load_probes(folder))
    if first is None:
        return None
    # By process: a fork copies a session, but not its threads, and would wait for them.
    sessions = {os.getpid(): first}
    output = transformer.module_output_name

    def forward(features: Features, **_: object) -> Features:
        session = sessions.get(os.getpid())
        if session is None:
            session = sessions.setdefault(os.getpid(), open_session(dtype))
        arrays = {name: features[name].numpy() for name in session.inputs}
        return {**features, output: torch.from_numpy(session.run(arrays))}

    transformer.forward = forward  # type: ignore[method-assign]
    # The configuration is still asked for, the weights are not: on this device they take no memory.
    transformer.model.to("meta")  # type: ignore[arg-type]
    return folder


def faithful_session(
    options: LoadOptions, open_session: Callable[[str], GraphSession], probes: list[Probe]
) -> tuple[GraphSession | None, str]:
    """Return a session whose outputs are torch's within rounding, and the dtype that it computes in.

    The one that was asked for; or else, with a `FidelityWarning`, the same graph computed in float32; or ``None``,
    for torch. Converting has compared the float32 graph with torch, but a kernel may be wrong on one processor alone,
    and the graph may have been made on another.
    """
    limit = _MAX_ERROR if options.dtype == "float32" else _MAX_ROUNDED_ERROR
    session, complaint = _tried(open_session, options.dtype, probes, limit)
    if session is not None:
        return session, options.dtype
    if session_kind(options).has_precisions and options.dtype != "float32":
        session, _ = _tried(open_session, "float32", probes, limit)
    served = "torch" if session is None else options.backend
    warn_user(
        f"{options.name_or_path!r} with backend={options.backend!r} and dtype={options.dtype!r} {complaint}. {served} "
        "in float32 computes in its place; pass backend='torch', or another dtype, to choose what computes",
        FidelityWarning,
    )
    return session, "float32"


def _tried(
    open_session: Callable[[str], GraphSession], dtype: str, probes: list[Probe], limit: float
) -> tuple[GraphSession | None, str]:
    """Return a session whose error is at most `limit`; or ``None``, and what is wrong with it."""
    try:
        session = open_session(dtype)
        error = relative_error(session, probes)
    except RerankError:
        raise
    except Exception as failure:
        # The runtimes raise their own kinds where a kernel that they need is not there.
        reason = str(failure).strip().rpartition("\n")[2]
        return None, f"does not run on this processor ({type(failure).__name__}: {reason})"
    if error <= limit:
        return session, ""
    texts = sum(len(probe.expected) for probe in probes)
    return None, (
        f"strays from torch on this processor: on {texts} built-in texts its error is {error:.2f} times the spread of "
        f"torch's outputs, expected at most {limit:.2f}"
    )
