"""Conversion of a loaded encoder into a graph, and the cache folder that stores graphs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rerank_integrations.cache import cache_folder, find_folder, find_or_make_folder
from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.models.checkpoints.files import fingerprint
from rerank_integrations.core.models.checkpoints.options import Backend, LoadOptions, ModelKind
from rerank_integrations.core.models.graphs.probes import EXPANDED, TEXTS, Probe, compute_probes, save_probes
from rerank_integrations.core.models.graphs.sessions import GraphSession, OnnxSession, OpenVINOSession
from rerank_integrations.errors import CheckpointError, MissingExtraError, RerankError

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.modules import Transformer


def graphs_folder() -> Path:
    """Return the folder of all stored graphs."""
    return cache_folder() / "graphs"


def find_graph(name: str) -> Path | None:
    """Return the stored graph's folder of that `name`; ``None`` if there is none, or if it is damaged."""
    return find_folder(graphs_folder() / name)


def find_or_make_graph(name: str, make: Callable[[Path], None]) -> Path:
    """Return the stored graph's folder of that `name`; if there is no sound one, `make` fills a new one."""
    return find_or_make_folder(graphs_folder() / name, make)


logger: logging.Logger = logging.getLogger(__name__)

Features: TypeAlias = "dict[str, torch.Tensor]"
Preprocess: TypeAlias = "Callable[[list[str]], list[Features]]"

# Part of every graph's name: raise it whenever conversion changes, so that older graphs are made again.
_CONVERSION_VERSION = "2"
_SESSIONS: dict[Backend, type[GraphSession]] = {"onnx": OnnxSession, "openvino": OpenVINOSession}
# The inputs and outputs of sentence-transformers' encoders of text.
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OUTPUTS = ("token_embeddings", "scores")
# Largest difference relative to the output's largest number; float32 sums in another order differ by about 1e-5.
_TOLERANCE = 1e-3

# Torch's exporter has state that belongs to the whole process.
_export_lock = threading.Lock()


def session_kind(options: LoadOptions) -> type[GraphSession]:
    """Return the class of session that ``options.backend`` names."""
    return _SESSIONS[options.backend]


def converted_graph(options: LoadOptions, kind: ModelKind, transformer: Transformer, preprocess: Preprocess) -> Path:
    """Return the folder of the graph of `transformer`, converting it if need be; arguments as for `serve_as_graph`."""
    session = session_kind(options)

    def make(folder: Path) -> None:
        logger.info("converting %s for %s", options.name_or_path, options.backend)
        with forks_held_off(), _export_lock, _guarded(options):
            examples = [_inputs(options, transformer, batch) for texts in TEXTS for batch in preprocess(texts)]
            probes = compute_probes(transformer, examples)
            with _source(options, kind, transformer, examples[0]) as source:
                _require_agreement(session(source, "float32"), probes)
                session.write(source, folder, int8=options.dtype == "int8")
            save_probes(probes, folder)

    return find_or_make_graph(_name(options, kind, transformer), make)


def _name(options: LoadOptions, kind: ModelKind, transformer: Transformer) -> str:
    weights = "int8" if options.dtype == "int8" else "float32"
    library = session_kind(options).library
    try:
        versions = [version(package) for package in (library, "torch", "transformers", "sentence-transformers")]
    except ModuleNotFoundError as error:
        raise MissingExtraError(options.backend, f"backend={options.backend!r}") from error
    # The class identifies code that came with a checkpoint: its module names the revision.
    encoder = type(transformer.model)
    identity = [
        _CONVERSION_VERSION,
        fingerprint(options, kind),
        f"{encoder.__module__}.{encoder.__qualname__}",
        dict(options.model_kwargs or {}),
        versions,
    ]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=repr).encode()).hexdigest()[:16]
    return f"{kind}-{options.backend}-{weights}-{digest}"


@contextlib.contextmanager
def _guarded(options: LoadOptions) -> Iterator[None]:
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        raise MissingExtraError(options.backend, f"backend={options.backend!r}") from error
    except (RerankError, OSError):
        raise
    except Exception as error:
        # The exporter and the runtimes raise errors of their own for everything they do not support.
        first = error
        while isinstance(first.__cause__, Exception):
            first = first.__cause__
        reason = str(first).strip().partition("\n")[0]
        raise CheckpointError(
            f"{options.name_or_path!r} does not convert for backend={options.backend!r} "
            f"({type(first).__name__}: {reason}); expected an encoder like BERT, or backend='torch'"
        ) from error


def _inputs(options: LoadOptions, transformer: Transformer, features: Features) -> Features:
    import torch

    tensors = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
    output = transformer.module_output_name
    if set(tensors) - {*_INPUTS, EXPANDED} or output not in _OUTPUTS:
        raise CheckpointError(
            f"{options.name_or_path!r} reads {', '.join(tensors)} and gives {output}; with "
            f"backend={options.backend!r} expected an encoder of text that gives token embeddings or scores"
        )
    return tensors


@contextlib.contextmanager
def _source(options: LoadOptions, kind: ModelKind, transformer: Transformer, example: Features) -> Iterator[Path]:
    """Yield the encoder as an ONNX file in float32: the stored one, or a temporary one."""
    stored = None
    with contextlib.suppress(MissingExtraError):
        stored = find_graph(_name(replace(options, backend="onnx", dtype="float32"), kind, transformer))
    if stored is not None:
        yield stored / OnnxSession.filename
        return
    with tempfile.TemporaryDirectory(prefix="export-", dir=graphs_folder()) as folder:
        path = Path(folder) / OnnxSession.filename
        from rerank_integrations.core.models.graphs.export import export_onnx

        export_onnx(transformer, example, path)
        yield path


def _require_agreement(session: GraphSession, probes: Sequence[Probe]) -> None:
    """Raise `ValueError` if the graph's output differs from torch's, since an exporter's mistake raises no error."""
    for probe in probes:
        expected = probe.expected[probe.real]
        difference = np.abs(probe.outputs(session)[probe.real] - expected).max()
        if not difference <= _TOLERANCE * max(1.0, np.abs(expected).max()):
            raise ValueError(f"the graph's output differs from torch's by {difference:.3g} on {probe.expected.shape}")
