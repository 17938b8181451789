"""The encoder of a loaded model, its forward pass done by a graph."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rerank_integrations.core.models.compute import side_by_side
from rerank_integrations.core.models.graphs.conversion import kept_graph, session_kind
from rerank_integrations.core.models.options import LoadOptions


def serve_as_graph(
    options: LoadOptions, kind: str, transformer: Any, preprocess: Callable[[list[str]], list[dict[str, Any]]]
) -> Path:
    """Let the graph of `transformer` do its forward pass, let go of its weights, and return the graph's folder.

    Tokenizer, lengths and configuration stay those of `transformer`, and what follows it stays in torch.

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
    """
    import torch

    session_class = session_kind(options)
    folder = kept_graph(options, kind, transformer, preprocess)
    path = folder / session_class.filename
    # By process: a fork copies a session, but not its threads, and would wait for them.
    callers = side_by_side() if kind == "cross-encoder" else 1
    sessions = {os.getpid(): session_class(path, options.dtype, callers)}
    output = transformer.module_output_name

    def forward(features: dict[str, Any], **_: Any) -> dict[str, Any]:
        session = sessions.get(os.getpid())
        if session is None:
            session = sessions.setdefault(os.getpid(), session_class(path, options.dtype, callers))
        arrays = {name: features[name].numpy() for name in session.inputs}
        return {**features, output: torch.from_numpy(session.run(arrays))}

    transformer.forward = forward
    # The configuration is still asked for, the weights are not: on this device they take no memory.
    transformer.model.to("meta")
    return folder
