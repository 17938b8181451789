"""Index of the standard library's docstrings in the user's cache folder."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rerank_integrations.cache import cache_folder
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexFormatError

# Raise it when the passages of the same Python change.
_CACHE_VERSION = "1"

Wrap = Callable[[list[Passage]], Iterable[Passage]]


def library_path(model: ColBERTModel) -> Path:
    """Return the folder of the index for this Python and this model, which need not exist."""
    identity = "\n".join([_CACHE_VERSION, sys.version, model.fingerprint])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return cache_folder() / f"stdlib-{platform.python_version()}-{digest}"


def open_library(model: ColBERTModel) -> ColBERTIndex | None:
    """Open the stored index read-only; return ``None`` if there is none of the present format."""
    path = library_path(model)
    try:
        return ColBERTIndex.open(path, model, read_only=True) if path.exists() else None
    except IndexFormatError:
        return None


def build_library(model: ColBERTModel, passages: list[Passage], wrap: Wrap) -> ColBERTIndex:
    """Store `passages` in the index for this Python and this model, and open it read-only.

    The index is built in a temporary folder and moved when it is complete, so an interrupted build leaves nothing.

    Parameters
    ----------
    model, passages
        The model that encodes the passages, and the passages.
    wrap
        Function that wraps the iteration over the passages, for a progress bar.
    """
    path = library_path(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
    try:
        with ColBERTIndex.create(temporary / "index", model) as index:
            index.upsert(wrap(passages), show_progress=False)
        shutil.rmtree(path, ignore_errors=True)
        (temporary / "index").rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ColBERTIndex.open(path, model, read_only=True)
