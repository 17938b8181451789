"""Cache folder for files that can be made again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

_MANIFEST = "files.json"

logger: logging.Logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return ``RERANK_INTEGRATIONS_CACHE`` if it is set, else this package's folder in the system's cache folder."""
    if folder := os.environ.get("RERANK_INTEGRATIONS_CACHE"):
        return Path(folder)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rerank-integrations"


def find_folder(folder: Path) -> Path | None:
    """Return `folder` if it contains the files that were made, with their checksums; else ``None``."""
    try:
        recorded = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return folder if recorded == _checksums(folder) else None
    except (OSError, ValueError):
        return None


def find_or_make_folder(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`; if it is absent or damaged, `make` fills a new one.

    One process makes it while the others wait. It is made in a folder beside and moved into place when complete, so
    that a kill at any moment leaves a whole one or none.
    """
    sound = find_folder(folder)
    if sound is not None:
        return sound
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        return find_folder(folder) or _make_folder(folder, make)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _make_folder(folder: Path, make: Callable[[Path], None]) -> Path:
    # This process has the lock, so a work folder is the remains of a process that was killed.
    for remains in folder.parent.glob(f"{folder.name}.work-*"):
        shutil.rmtree(remains, ignore_errors=True)
    if folder.exists():
        logger.warning("%s is damaged and is made again", folder)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.work-", dir=folder.parent))
    try:
        make(work)
        (work / _MANIFEST).write_text(json.dumps(_checksums(work), indent=2) + "\n", encoding="utf-8")
        _copy_parent_mode(work)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _copy_parent_mode(folder: Path) -> None:
    """Give a folder and its files the mode of the folder above, since temporary folders are for their owner only."""
    mode = folder.parent.stat().st_mode & 0o777
    folder.chmod(mode)
    for path in folder.iterdir():
        path.chmod(mode & 0o666)


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: checksum(path) for path in sorted(folder.iterdir()) if path.name != _MANIFEST}
