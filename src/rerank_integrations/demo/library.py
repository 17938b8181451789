"""The index of the standard library's docstrings, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rerank_integrations.core.cache import cache_folder
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexFormatError

_RULES = "1"  # raise it when the passages are made in another way

Wrap = Callable[[list[Passage]], Iterable[Passage]]


def library_path(model: ColBERTModel) -> Path:
    """Return where the index for this Python and this model is, or would be."""
    identity = "\n".join([_RULES, sys.version, model.fingerprint])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return cache_folder() / f"stdlib-{platform.python_version()}-{digest}"


def open_library(model: ColBERTModel) -> ColBERTIndex | None:
    """Open the kept index read-only; ``None`` if there is none, or none of the present format."""
    path = library_path(model)
    try:
        return ColBERTIndex.open(path, model, read_only=True) if path.exists() else None
    except IndexFormatError:
        return None


def build_library(model: ColBERTModel, passages: list[Passage], wrap: Wrap) -> ColBERTIndex:
    """Index `passages`, keep the index, and open it read-only.

    It is built beside its place and moved there when complete, so an interrupted build leaves nothing half done.

    Parameters
    ----------
    wrap
        Wraps the passages as they are read, for a progress bar.
    """
    path = library_path(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
    try:
        with ColBERTIndex.create(work / "index", model) as index:
            index.upsert(wrap(passages), show_progress=False)
        shutil.rmtree(path, ignore_errors=True)
        (work / "index").rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return ColBERTIndex.open(path, model, read_only=True)
