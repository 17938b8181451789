"""Folders for compiled loops, and which kinds of index they are complete for.

What numba keeps is pickled: who can write a folder runs code in every process that reads it. So a folder outside the
package is used only if nobody but its owner, who is this user or root, can write it.

Imports no numba: opening an index asks here whether there is anything to compile.
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

from rerank_integrations.core.cache import cache_folder

_PACKAGE = Path(__file__).parent
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
# Lines of /proc/cpuinfo that say what a processor can do.
_CPU_LINES = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU ")


@functools.cache
def code_folders() -> tuple[Path, ...]:
    """Return the folders that compiled loops may be read from, in this order; the user's choice for numba alone."""
    written = writable_folder()
    if written is not None and written.parent == _chosen():
        return (written,)
    return tuple(folder for folder in _candidates() if folder.is_dir() and _trusted(folder))


@functools.cache
def writable_folder() -> Path | None:
    """Return the folder that compiled loops are written to, made if absent; ``None`` if there is no such folder."""
    for folder in _candidates():
        with contextlib.suppress(OSError):
            # One by one, as `parents` would be made with the usual mode.
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            if _trusted(folder):
                tempfile.TemporaryFile(dir=folder).close()
                return folder
    return None


def is_complete(nbits: int) -> bool:
    """Return whether all loops for an index of so many bits are compiled, for this processor and these versions."""
    return any(_marked(folder, nbits) for folder in code_folders())


def mark_complete(folder: Path, nbits: int) -> None:
    """Record that a folder has all loops for an index of so many bits."""
    files = sorted(file.name for file in folder.glob("*.nbc"))
    partial = folder / f"{_marker(nbits)}.{os.getpid()}"
    partial.write_text(json.dumps(files))
    partial.replace(folder / _marker(nbits))


def _candidates() -> list[Path]:
    # The same name for the same installation: two of them would write over each other's files.
    name = f"plaid-{hashlib.sha256(str(_PACKAGE).encode()).hexdigest()[:16]}"
    found = [_PACKAGE / "__pycache__"]
    if chosen := _chosen():
        found.insert(0, chosen / name)
    # Without a home there is no usual folder, and on a read-only system no temporary one.
    with contextlib.suppress(RuntimeError):
        found.append(cache_folder().absolute() / "compiled" / name)
    with contextlib.suppress(FileNotFoundError):
        user = os.getuid() if hasattr(os, "getuid") else "user"
        found.append(Path(tempfile.gettempdir()) / f"rerank-integrations-{user}" / name)
    return found


def _chosen() -> Path | None:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return Path(chosen).absolute() if chosen else None


def _trusted(folder: Path) -> bool:
    # The package's own folder as its code, the user's as the user says.
    if folder.parent in (_PACKAGE, _chosen()) or not hasattr(os, "geteuid"):
        return True
    for place in (folder, folder.parent):
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            return False
        if status.st_mode & _OTHERS_MAY_WRITE:
            return False
    # Who can rename a folder above can put another in its place, unless only owners may (as in /tmp).
    modes = [place.stat().st_mode for place in folder.resolve().parents]
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
    """Return a name for all that numba looks at before it takes a compiled loop: sources, versions, processor."""
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
        # In a frozen program.
        return ""


def _processor() -> list[str]:
    try:
        # Of the first core; with hundreds of them the whole takes long to read.
        with Path("/proc/cpuinfo").open() as file:
            lines = file.read(1 << 14).split("\n\n", 1)[0].splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    return [platform.machine(), *(line for line in lines if line.startswith(_CPU_LINES))]
