"""The folders of an index's vectors: logged before they are made, removed when nobody can need them."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.storage.arrays import Checksums, write_arrays
from rerank_integrations.core.index.storage.catalog import FOLDER_KINDS, Catalog, FolderKind, WriteTransaction
from rerank_integrations.core.index.storage.lock import WriterLock
from rerank_integrations.core.index.storage.refusals import cause

_LOGGER = logging.getLogger(__name__)

SEGMENTS: FolderKind = "segments"
CODECS: FolderKind = "codecs"

_NAME = re.compile(r"([0-9a-f]{32})(?:\.tmp)?")
# Names that a commit logs for future folders, so that these need no transaction of their own.
_SPARE_NAMES = 8
# How long a sweep waits for readers of older commits; the next sweep removes what they still need.
_PATIENCE_MS = 100


class Folders:
    """Make and remove folders in ``segments`` and ``codecs``, for the one writer of an index, which holds the lock.

    The catalog logs each name before a folder of that name is made, and again in the transaction that no longer names
    it. Only such folders are ever removed: not what another program put there, not what stands behind a link, and not
    what the catalog has lost by damage.
    """

    def __init__(self, path: Path, catalog: Catalog, lock: WriterLock) -> None:
        self.path = path
        self._catalog = catalog
        self._lock = lock
        self._spare: list[str] = []
        self._gone: set[str] = set()

    def write(self, kind: FolderKind, arrays: Mapping[str, NDArray[np.generic]]) -> tuple[str, Checksums]:
        """Write and sync a new folder of arrays; return its name, and the checksums of its files.

        Raises
        ------
        IndexMovedError
            If the index is no longer at its path; nothing is written.
        IndexWriteError
            If the operating system refuses; nothing is left behind.
        """
        self._require_ours()
        if not self._spare:
            with self._catalog.write(new_commit=False) as transaction:
                names = self._settle(transaction)
            self._spare = names
        name = self._spare.pop()
        return name, write_arrays(self.path / kind, name, arrays)

    @contextlib.contextmanager
    def commit(self) -> Iterator[WriteTransaction]:
        """Begin the transaction that names the new folders."""
        self._require_ours()
        with self._catalog.write() as transaction:
            transaction.ensure_folder_log()
            yield transaction
            names = self._settle(transaction)
        self._spare += names

    def sweep(self) -> None:
        """Remove folders that a killed or failed write has left, and those that only commits without readers name.

        Nothing is removed while a folder that the catalog names is absent: that is damage, for `verify` to report.

        Raises
        ------
        IndexMovedError
            If the index is no longer at its path; nothing is removed.
        """
        self._require_ours()
        with self._catalog.read() as transaction:
            log = transaction.folder_log()
            in_use = {kind: transaction.folder_names(kind) for kind in FOLDER_KINDS}
        if not all(isinstance(name, str) for name in (*log, *in_use[SEGMENTS], *in_use[CODECS])):
            _LOGGER.warning("%s is damaged: its catalog lacks names of folders, so nothing is removed", self.path)
            return
        known = in_use[SEGMENTS] | in_use[CODECS] | set(self._spare)
        leftovers = {name: bool(named) for name, named in log.items() if name not in known}
        try:
            if leftovers and not self._is_missing_any(in_use):
                self._remove(leftovers)
            self._gone = {name for name in leftovers if not _is_left(self.path, name)}
        except OSError as error:
            # The last commit stands, and the next sweep tries again.
            _LOGGER.warning("folders of %s that are not needed could not be removed: %s", self.path, cause(error))

    def _remove(self, leftovers: Mapping[str, bool]) -> None:
        folders = [folder for kind in FOLDER_KINDS for folder in _plain_folders(self.path, kind, leftovers)]
        # No reader can have a folder open that no commit ever named.
        if any(leftovers[_log_name(folder)] for folder in folders):
            proven = self._catalog.is_past_all_readers(_PATIENCE_MS)
            folders = [folder for folder in folders if proven or not leftovers[_log_name(folder)]]
        for folder in folders:
            _remove(folder)

    def _is_missing_any(self, in_use: Mapping[FolderKind, set[str]]) -> bool:
        for kind, names in in_use.items():
            for name in names:
                if not (self.path / kind / name).is_dir():
                    _LOGGER.warning("%s is damaged: %s/%s is missing, so nothing is removed", self.path, kind, name)
                    return True
        return False

    def _require_ours(self) -> None:
        self._catalog.require_in_place()
        self._lock.require_owned()

    def _settle(self, transaction: WriteTransaction) -> list[str]:
        """Bring the log up to date with what is named and what is gone; log names for future folders."""
        names = [uuid.uuid4().hex for _ in range(_SPARE_NAMES - len(self._spare))]
        transaction.update_folder_log(self._gone, names)
        self._gone = set()
        return names


def _log_name(folder: Path) -> str:
    return folder.name.removesuffix(".tmp")


def _plain_folders(path: Path, kind: FolderKind, wanted: Mapping[str, bool]) -> Iterator[Path]:
    """Yield the folders of these names in ``path/kind``: none behind a link, none on another file system."""
    parent = path / kind
    device = path.stat().st_dev
    if not _is_plain(parent, device):
        return
    for folder in sorted(parent.iterdir()):
        match = _NAME.fullmatch(folder.name)
        if match and match[1] in wanted and _is_plain(folder, device):
            yield folder


def _is_left(path: Path, name: str) -> bool:
    return any(os.path.lexists(path / kind / (name + end)) for kind in FOLDER_KINDS for end in ("", ".tmp"))


def _is_plain(folder: Path, device: int) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_dev == device


def _remove(folder: Path) -> None:
    """Remove a folder and the arrays in it; any other file there is not ours, and keeps the folder."""
    # Where an open file cannot be removed (Windows) the next sweep will.
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            if file.suffix == ".npy" and stat.S_ISREG(file.lstat().st_mode):
                file.unlink()
        folder.rmdir()
