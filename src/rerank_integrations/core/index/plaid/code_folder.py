"""Folders for compiled loops, and the kinds of index for which they are complete.

Numba stores compiled code as pickles, so whoever can write to a folder can run code in every process that reads it. A
folder outside the package is therefore used only if nobody but its owner, who is this user or root, can write to it.

Importing this module loads no numba: opening an index asks here whether there is anything to compile.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import stat
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rerank_integrations.cache import cache_folder

_PACKAGE = Path(__file__).parent
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# The lines of /proc/cpuinfo that tell processors apart by what they can run.
_CPU_LINES = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU ")


@functools.cache
def code_folders() -> tuple[Path, ...]:
    """Return the folders to read compiled loops from, in order; only the user's choice for numba if there is one."""
    written = writable_folder()
    if written is not None and written.parent == _chosen():
        return (written,)
    return tuple(folder for folder in _candidates() if folder.is_dir() and _trusted(folder))


@functools.cache
def writable_folder() -> Path | None:
    """Return the folder to write compiled loops to, made if it is absent; ``None`` if no folder can be written."""
    for folder in _candidates():
        with contextlib.suppress(OSError):
            # The parent separately, since `parents=True` makes folders with the default mode.
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            if _trusted(folder):
                tempfile.TemporaryFile(dir=folder).close()
                return folder
    return None


def is_complete(nbits: int) -> bool:
    """Return whether all loops for an index with this many bits are compiled, for this processor and these versions."""
    return any(_marked(folder, nbits) for folder in code_folders())


def mark_complete(folder: Path, nbits: int) -> None:
    """Record that a folder has all loops for an index with this many bits per dimension."""
    files = sorted(file.name for file in folder.glob("*.nbc"))
    partial = folder / f"{_marker(nbits)}.{os.getpid()}"
    partial.write_text(json.dumps(files))
    partial.replace(folder / _marker(nbits))


def _candidates() -> list[Path]:
    # One name per installation, since two installations would overwrite each other's files.
    name = f"plaid-{hashlib.sha256(str(_PACKAGE).encode()).hexdigest()[:16]}"
    folders = [_PACKAGE / "__pycache__"]
    if chosen := _chosen():
        folders.insert(0, chosen / name)
    # A user without a home has no cache folder, and a read-only system has no temporary one.
    with contextlib.suppress(RuntimeError):
        folders.append(cache_folder().absolute() / "compiled" / name)
    with contextlib.suppress(FileNotFoundError):
        user = os.getuid() if hasattr(os, "getuid") else "user"
        folders.append(Path(tempfile.gettempdir()) / f"rerank-integrations-{user}" / name)
    return folders


def _chosen() -> Path | None:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return Path(chosen).absolute() if chosen else None


def _trusted(folder: Path) -> bool:
    # The package's own folder is trusted like its code, and the user's choice like the user.
    if folder.parent in (_PACKAGE, _chosen()) or not hasattr(os, "geteuid"):
        return True
    for directory in (folder, folder.parent):
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            return False
        if status.st_mode & _WRITABLE_BY_OTHERS:
            return False
    # Whoever can rename a folder above can replace it, unless only owners may rename (as in /tmp).
    modes = [directory.stat().st_mode for directory in folder.resolve().parents]
    return all(not mode & stat.S_IWOTH or mode & stat.S_ISVTX for mode in modes)


def _marked(folder: Path, nbits: int) -> bool:
    try:
        files = json.loads((folder / _marker(nbits)).read_bytes())
        return isinstance(files, list) and all((folder / str(name)).is_file() for name in files)
    except (OSError, ValueError):
        return False


def _marker(nbits: int) -> str:
    return f"complete-{nbits}-{_fingerprint()}.json"


@functools.cache
def _fingerprint() -> str:
    """Return a hash of everything on which compiled code depends: sources, versions, numba's settings, processor."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.glob("*.py")):
        digest.update(file.read_bytes())
    settings = {key: value for key, value in os.environ.items() if key.startswith("NUMBA_")}
    settings.pop("NUMBA_CACHE_DIR", None)
    facts = sys.version, _version("numba"), _version("llvmlite"), sorted(settings.items()), _processor()
    digest.update(repr(facts).encode())
    return digest.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # A frozen program has no metadata of packages.
        return ""


def _processor() -> list[str]:
    try:
        # Only the first core's entry: with hundreds of cores the whole file takes long to read.
        with Path("/proc/cpuinfo").open() as file:
            lines = file.read(1 << 14).split("\n\n", 1)[0].splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    return [platform.machine(), *(line for line in lines if line.startswith(_CPU_LINES))]
