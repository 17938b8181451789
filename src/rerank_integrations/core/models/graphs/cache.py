"""The folder of converted graphs: each made once, whole or not at all, whoever asks at the same time."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from rerank_integrations.core.cache import cache_folder

logger = logging.getLogger(__name__)

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
