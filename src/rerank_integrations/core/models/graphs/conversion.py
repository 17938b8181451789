"""From a loaded encoder to the graph that is kept of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from filelock import FileLock

from rerank_integrations.core.cache import cache_folder
from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.models.checkpoints.files import fingerprint
from rerank_integrations.core.models.checkpoints.options import Backend, LoadOptions, ModelKind
from rerank_integrations.core.models.graphs.probes import EXPANDED, TEXTS, Probe, compute_probes, save_probes
from rerank_integrations.core.models.graphs.sessions import GraphSession, OnnxSession, OpenVINOSession
from rerank_integrations.errors import CheckpointError, MissingExtraError, RerankError

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.modules import Transformer

_MANIFEST = "files.json"


def graphs_folder() -> Path:
    """Return where the graphs are kept."""
    return cache_folder() / "graphs"


def find_graph(name: str) -> Path | None:
    """Return the folder that is kept under `name`; ``None`` if there is none, or if it is damaged."""
    folder = graphs_folder() / name
    return folder if _is_sound(folder) else None


def keep_graph(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that is kept under `name`; where there is no sound one, `make` fills a new one.

    Of several processes one makes it and the others wait. It is made beside its place and moved there when complete.
    """
    found = find_graph(name)
    if found is not None:
        return found
    root = graphs_folder()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{name}.lock"):
        found = find_graph(name)
        return found or _made(root / name, make)


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    # Under the lock nobody else is at work: what lies there was left by a process that was killed.
    for left in folder.parent.glob(f"{folder.name}.work-*"):
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():
        logger.warning("the graph in %s is damaged and is made anew", folder)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.work-", dir=folder.parent))
    try:
        make(work)
        (work / _MANIFEST).write_text(json.dumps(_checksums(work), indent=2) + "\n", encoding="utf-8")
        _open_to_readers(work)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _open_to_readers(folder: Path) -> None:
    """Give a folder and its files the mode of the folder above: some come for their owner alone."""
    mode = folder.parent.stat().st_mode & 0o777
    folder.chmod(mode)
    for path in folder.iterdir():
        path.chmod(mode & 0o666)


def _is_sound(folder: Path) -> bool:
    try:
        recorded = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(recorded == _checksums(folder))
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: _checksum(path) for path in sorted(folder.iterdir()) if path.name != _MANIFEST}


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


logger = logging.getLogger(__name__)

Features: TypeAlias = "dict[str, torch.Tensor]"
Preprocess: TypeAlias = "Callable[[list[str]], list[Features]]"

_RULES = "2"  # raise it when graphs are made in another way
_SESSIONS: dict[Backend, type[GraphSession]] = {"onnx": OnnxSession, "openvino": OpenVINOSession}
# What sentence-transformers' encoders of text read, and what they give.
_READ = ("input_ids", "attention_mask", "token_type_ids")
_GIVEN = ("token_embeddings", "scores")
# Relative to the largest number of the output; float32 sums in another order differ by some 1e-5.
_TOLERANCE = 1e-3

# Torch's exporter keeps state of the process.
_one_at_a_time = threading.Lock()


def session_kind(options: LoadOptions) -> type[GraphSession]:
    """Return the class of session that ``options.backend`` names."""
    return _SESSIONS[options.backend]


def kept_graph(options: LoadOptions, kind: ModelKind, transformer: Transformer, preprocess: Preprocess) -> Path:
    """Return the folder of the graph of `transformer`, made now if there is none; arguments as of `serve_as_graph`."""
    session = session_kind(options)

    def make(folder: Path) -> None:
        logger.info("converting %s for %s", options.name_or_path, options.backend)
        with forks_held_off(), _one_at_a_time, _guarded(options):
            examples = [_inputs(options, transformer, batch) for texts in TEXTS for batch in preprocess(texts)]
            probes = compute_probes(transformer, examples)
            with _source(options, kind, transformer, examples[0]) as source:
                _require_agreement(session(source, "float32"), probes)
                session.write(source, folder, int8=options.dtype == "int8")
            save_probes(probes, folder)

    return keep_graph(_name(options, kind, transformer), make)


def _name(options: LoadOptions, kind: ModelKind, transformer: Transformer) -> str:
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


def _inputs(options: LoadOptions, transformer: Transformer, features: Features) -> Features:
    import torch

    tensors = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
    output = transformer.module_output_name
    if set(tensors) - {*_READ, EXPANDED} or output not in _GIVEN:
        raise CheckpointError(
            f"{options.name_or_path!r} reads {', '.join(tensors)} and gives {output}; with "
            f"backend={options.backend!r} expected an encoder of text that gives token embeddings or scores"
        )
    return tensors


@contextlib.contextmanager
def _source(options: LoadOptions, kind: ModelKind, transformer: Transformer, example: Features) -> Iterator[Path]:
    """Yield the encoder as an ONNX file in float32: the one that is kept, or one that is removed afterwards."""
    kept = None
    with contextlib.suppress(MissingExtraError):
        kept = find_graph(_name(replace(options, backend="onnx", dtype="float32"), kind, transformer))
    if kept is not None:
        yield kept / OnnxSession.filename
        return
    with tempfile.TemporaryDirectory(prefix="export-", dir=graphs_folder()) as folder:
        path = Path(folder) / OnnxSession.filename
        from rerank_integrations.core.models.graphs.export import export_onnx

        export_onnx(transformer, example, path)
        yield path


def _require_agreement(session: GraphSession, probes: Sequence[Probe]) -> None:
    """Raise `ValueError` if the graph gives another output than torch: an exporter's mistake would be silent."""
    for probe in probes:
        expected = probe.expected[probe.real]
        difference = np.abs(probe.outputs(session)[probe.real] - expected).max()
        if not difference <= _TOLERANCE * max(1.0, np.abs(expected).max()):
            raise ValueError(f"the graph's output differs from torch's by {difference:.3g} on {probe.expected.shape}")
