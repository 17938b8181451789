"""From a loaded encoder to the graph that is kept of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rerank_integrations.core.forking import forks_held_off
from rerank_integrations.core.models.checkpoint import fingerprint
from rerank_integrations.core.models.graphs.cache import find_graph, graphs_folder, keep_graph
from rerank_integrations.core.models.graphs.onnx_session import OnnxSession
from rerank_integrations.core.models.graphs.openvino_session import OpenVINOSession
from rerank_integrations.core.models.graphs.session import GraphSession
from rerank_integrations.core.models.options import LoadOptions
from rerank_integrations.errors import CheckpointError, MissingExtraError, RerankError

logger = logging.getLogger(__name__)

Preprocess: TypeAlias = "Callable[[list[str]], list[dict[str, Any]]]"

_RULES = "1"  # raise it when graphs are made in another way
_SESSIONS: dict[str, type[GraphSession]] = {"onnx": OnnxSession, "openvino": OpenVINOSession}
# What sentence-transformers' encoders of text read, and what they give.
_READ = ("input_ids", "attention_mask", "token_type_ids")
# Where [MASK] was put into a query: vectors count there, though no token attends to them.
_EXPANDED = "query_expansion_positions"
_GIVEN = ("token_embeddings", "scores")
# Of several lengths, so that some are padded; the graph is made with the first and must agree on all.
_EXAMPLES = (
    ["one text", "a text that is somewhat longer than the one before it", "and one more"],
    ["a text alone"],
    ["short", *["the same words again and again " * 8] * 4, "medium: " + "word " * 9],
)
# Relative to the largest number of the output; float32 sums in another order differ by some 1e-5.
_TOLERANCE = 1e-3

# Torch's exporter keeps state of the process.
_one_at_a_time = threading.Lock()


def session_kind(options: LoadOptions) -> type[GraphSession]:
    """Return the class of session that ``options.backend`` names."""
    return _SESSIONS[options.backend]


def kept_graph(options: LoadOptions, kind: str, transformer: Any, preprocess: Preprocess) -> Path:
    """Return the folder of the graph of `transformer`, made now if there is none; arguments as of `serve_as_graph`."""
    session = session_kind(options)

    def make(folder: Path) -> None:
        logger.info("converting %s for %s", options.name_or_path, options.backend)
        with forks_held_off(), _one_at_a_time, _guarded(options):
            examples = [_inputs(options, transformer, batch) for texts in _EXAMPLES for batch in preprocess(texts)]
            with _source(options, kind, transformer, examples[0]) as source:
                _require_agreement(session(source, "float32"), transformer, examples)
                session.write(source, folder, int8=options.dtype == "int8")

    return keep_graph(_name(options, kind, transformer), make)


def _name(options: LoadOptions, kind: str, transformer: Any) -> str:
    stored = "int8" if options.dtype == "int8" else "float32"
    library = session_kind(options).library
    try:
        versions = [version(each) for each in (library, "torch", "transformers", "sentence-transformers")]
    except ModuleNotFoundError as error:
        raise MissingExtraError(options.backend, f"backend={options.backend!r}") from error
    # The class too: of code that came with a checkpoint, its module names the revision.
    encoder = type(transformer.model)
    identity = [
        _RULES,
        fingerprint(options, kind),
        f"{encoder.__module__}.{encoder.__qualname__}",
        dict(options.model_kwargs or {}),
        versions,
    ]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=repr).encode()).hexdigest()[:16]
    return f"{kind}-{options.backend}-{stored}-{digest}"


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
        # The exporter and the runtimes raise their own kinds, for whatever they do not know.
        first = error
        while isinstance(first.__cause__, Exception):
            first = first.__cause__
        reason = str(first).strip().partition("\n")[0]
        raise CheckpointError(
            f"{options.name_or_path!r} does not convert for backend={options.backend!r} "
            f"({type(first).__name__}: {reason}); expected an encoder like BERT, or backend='torch'"
        ) from error


def _inputs(options: LoadOptions, transformer: Any, features: dict[str, Any]) -> dict[str, Any]:
    import torch

    tensors = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
    output = transformer.module_output_name
    if set(tensors) - {*_READ, _EXPANDED} or output not in _GIVEN:
        raise CheckpointError(
            f"{options.name_or_path!r} reads {', '.join(tensors)} and gives {output}; with "
            f"backend={options.backend!r} expected an encoder of text that gives token embeddings or scores"
        )
    return tensors


@contextlib.contextmanager
def _source(options: LoadOptions, kind: str, transformer: Any, example: dict[str, Any]) -> Iterator[Path]:
    """Yield the encoder as an ONNX file in float32: the one that is kept, or one that is removed afterwards."""
    kept = None
    with contextlib.suppress(MissingExtraError):
        kept = find_graph(_name(replace(options, backend="onnx", dtype="float32"), kind, transformer))
    if kept is not None:
        yield kept / OnnxSession.filename
        return
    with tempfile.TemporaryDirectory(prefix="export-", dir=graphs_folder()) as folder:
        from rerank_integrations.core.models.graphs.export import export_onnx

        path = Path(folder) / OnnxSession.filename
        export_onnx(transformer, example, path)
        yield path


def _require_agreement(session: GraphSession, transformer: Any, examples: list[dict[str, Any]]) -> None:
    """Raise `ValueError` if the graph gives another output than torch: an exporter's mistake would be silent."""
    import torch

    for example in examples:
        with torch.inference_mode():
            expected = transformer(dict(example))[transformer.module_output_name].numpy()
        found = session.run({name: example[name].numpy() for name in session.inputs})
        real = _real(example, expected)
        difference = np.abs(found - expected)[real].max()
        if not difference <= _TOLERANCE * max(1.0, np.abs(expected[real]).max()):
            raise ValueError(f"the graph's output differs from torch's by {difference:.3g} on {expected.shape}")


def _real(example: dict[str, Any], output: Any) -> Any:
    # What stands at padding is read by nobody.
    if output.ndim != 3:
        return slice(None)
    read = example["attention_mask"].bool()
    return (read | example[_EXPANDED].bool() if _EXPANDED in example else read).numpy()
