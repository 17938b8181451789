"""The folder of an index: its path, whether a new index may be made there, and its removal."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from rerank_integrations.core.index.storage import lock
from rerank_integrations.core.index.storage.catalog import FILENAME, Catalog
from rerank_integrations.core.index.storage.refusals import cause, is_file
from rerank_integrations.errors import IndexExistsError, IndexFormatError, IndexWriteError, InvalidInputError

_TABLES = {"meta", "segments", "passages"}
# How long a temporary folder outlives its index for calls in flight: a search takes milliseconds, verify() longer.
_PATIENCE_S = 60.0
_TRIES = 5


def index_folder(path: str | os.PathLike[str]) -> Path:
    """Return `path` as an absolute one, so that a later change of the working directory does not move it."""
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or "\0" in name or not name:
        raise InvalidInputError(f"index path is {path!r}; expected the path of a folder")
    return Path(name).absolute()


def make_folder(path: str | os.PathLike[str] | None) -> Path:
    """Make the folder at `path` unless it exists, or a temporary one for ``None``.

    Raises
    ------
    IndexWriteError
        If the operating system refuses.
    """
    try:
        if path is None:
            return Path(tempfile.mkdtemp(prefix="colbert-index-"))
        folder = index_folder(path)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexWriteError(f"cannot make a folder for an index: {error}") from error
    return folder


def require_free(folder: Path, overwrite: bool) -> None:
    """Raise unless a new index may be made at `folder`.

    Raises
    ------
    IndexExistsError
        If an index stands there and `overwrite` is false.
    IndexFormatError
        If anything else stands there.
    IndexWriteError
        If the operating system does not say what stands there.
    """
    try:
        # Listed once: another process may be making an index there at this moment.
        others = {path.name for path in folder.iterdir()} - {lock.FILENAME}
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        if not os.path.lexists(folder):
            # A parent is a file, which `make_folder` reports.
            return
        raise IndexFormatError(f"{folder} is a file; expected a folder, or nothing, to make an index in") from error
    except OSError as error:
        raise IndexWriteError(f"an index cannot be made at {folder}: {cause(error)}") from error
    if not others:
        return
    if FILENAME not in others or not is_file(folder / FILENAME):
        raise IndexFormatError(
            f"{folder} holds {len(others)} files but no index, {min(others)!r} for one; expected an empty folder"
        )
    # The log of folders stands alone until an import has made the other tables.
    tables = _tables(folder) - {"folders"}
    if tables and not tables >= _TABLES:
        raise IndexFormatError(f"{folder / FILENAME} is another program's database; expected an index or nothing")
    # A catalog without tables was left by a create that was killed; nothing was in it.
    if tables and not overwrite:
        raise IndexExistsError(f"{folder} holds an index; open it, or pass overwrite=True to empty it")


def release(catalog: Catalog, writer_lock: lock.WriterLock | None, temporary: Path | None, pid: int) -> None:
    """Close the files of an index, and remove a temporary one's folder once no thread reads there any more."""
    in_place = catalog.is_in_place()
    catalog.close()
    if pid != os.getpid():
        # The lock and the folder are still the parent's.
        return
    if writer_lock is not None:
        writer_lock.release()
    # Another program's files may stand at the path by now.
    if temporary is not None and in_place:
        try:
            catalog.wait_unused(_PATIENCE_S)
        finally:
            _remove(temporary)


def _remove(folder: Path) -> None:
    # More than once, since another index object that reads there may make SQLite's files again between two steps.
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _tables(folder: Path) -> set[str]:
    catalog = Catalog(folder / FILENAME, read_only=True)
    try:
        return catalog.table_names()
    finally:
        catalog.close()
