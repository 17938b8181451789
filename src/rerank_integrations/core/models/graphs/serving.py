"""A loaded model whose encoder's forward pass is computed by a graph."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_integrations.core.concurrency.cores import side_by_side
from rerank_integrations.core.models.checkpoints.options import LoadOptions, ModelKind
from rerank_integrations.core.models.graphs.conversion import Features, Preprocess, converted_graph, session_kind
from rerank_integrations.core.models.graphs.probes import Probe, load_probes, relative_error
from rerank_integrations.core.models.graphs.sessions import GraphSession
from rerank_integrations.errors import FidelityWarning, RerankError, warn_user

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Transformer

# Largest relative error on the probes in float32: sums in another order give about 1e-5, wrong kernels 1.
_MAX_ERROR = 0.01
# Largest relative error in fewer bits. An error of a third of the spread leaves a correlation of 0.95
# (1 / sqrt(1 + 1/9)) and nine of ten pairs of passages in torch's order (1/2 + arcsin(0.95) / pi). It follows from the
# spread of scores, not from any processor: sound graphs in 8 bits have errors of 0.03 to 0.15, wrong kernels of 1 and
# more.
_MAX_ROUNDED_ERROR = 1 / 3


def serve_as_graph(
    options: LoadOptions, kind: ModelKind, transformer: Transformer, preprocess: Preprocess
) -> Path | None:
    """Let the graph of `transformer` compute its forward pass, free its weights, and return the graph's folder.

    Tokenizer, lengths and configuration stay those of `transformer`, and the modules after it stay in torch. If the
    graph strays from torch on this processor, even in float32, `transformer` stays as it is and ``None`` is returned.

    Parameters
    ----------
    kind
        ``"colbert"`` or ``"cross-encoder"``.
    transformer
        A `sentence_transformers.base.modules.Transformer` in float32 on the CPU.
    preprocess
        Returns the inputs of the forward pass for some texts, in each way that the model reads them, queries last. Only
        called if the graph must be made.

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
    folder = converted_graph(options, kind, transformer, preprocess)
    callers = side_by_side() if kind == "cross-encoder" else 1
    open_session = functools.partial(session_class, folder / session_class.filename, callers=callers)
    session, dtype = faithful_session(options, open_session, load_probes(folder))
    if session is None:
        return None
    # One session per process: a fork copies a session without its threads, and would wait for them.
    sessions = {os.getpid(): session}
    output = transformer.module_output_name

    def forward(features: Features, **_: object) -> Features:
        current = sessions.get(os.getpid()) or sessions.setdefault(os.getpid(), open_session(dtype))
        arrays = {name: features[name].numpy() for name in current.inputs}
        return {**features, output: torch.from_numpy(current.run(arrays))}

    transformer.forward = forward  # type: ignore[method-assign]
    # The configuration is still used but the weights are not: on this device they take no memory.
    transformer.model.to("meta")  # type: ignore[arg-type]
    return folder


def faithful_session(
    options: LoadOptions, open_session: Callable[[str], GraphSession], probes: list[Probe]
) -> tuple[GraphSession | None, str]:
    """Return a session whose outputs equal torch's within rounding, and the dtype that it computes in.

    That is the session of ``options.dtype``; or else, with a `FidelityWarning`, the same graph computed in float32; or
    ``None``, which means torch. Conversion has compared the float32 graph with torch, but a kernel may be wrong on one
    processor only, and the graph may have been made on another.
    """
    limit = _MAX_ERROR if options.dtype == "float32" else _MAX_ROUNDED_ERROR
    session, complaint = _try_session(open_session, options.dtype, probes, limit)
    if session is not None:
        return session, options.dtype
    if session_kind(options).has_precisions and options.dtype != "float32":
        session, _ = _try_session(open_session, "float32", probes, limit)
    served = "torch" if session is None else options.backend
    warn_user(
        f"{options.name_or_path!r} with backend={options.backend!r} and dtype={options.dtype!r} {complaint}. {served} "
        "in float32 computes in its place; pass backend='torch', or another dtype, to choose what computes",
        FidelityWarning,
    )
    return session, "float32"


def _try_session(
    open_session: Callable[[str], GraphSession], dtype: str, probes: list[Probe], limit: float
) -> tuple[GraphSession | None, str]:
    """Return a session whose error is at most `limit`, or ``None`` with a description of the problem."""
    try:
        session = open_session(dtype)
        error = relative_error(session, probes)
    except RerankError:
        raise
    except Exception as failure:
        # The runtimes raise errors of their own if a kernel that they need does not exist.
        reason = str(failure).strip().rpartition("\n")[2]
        return None, f"does not run on this processor ({type(failure).__name__}: {reason})"
    if error <= limit:
        return session, ""
    texts = sum(len(probe.expected) for probe in probes)
    return None, (
        f"strays from torch on this processor: on {texts} built-in texts its error is {error:.2f} times the spread of "
        f"torch's outputs, expected at most {limit:.2f}"
    )
