"""The exceptions that this package raises on purpose: one base, one small family."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path


class RerankError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidInputError(RerankError, ValueError):
    """An argument has the wrong type or value; nothing was stored or changed."""


class MissingExtraError(RerankError, ImportError):
    """An optional dependency is absent; the message names the exact ``pip install`` command."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an extra: pip install 'rerank-integrations[{extra}]'")
        self.extra = extra
        self._needed_for = needed_for

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """Come through a pickle, as from another process: `args` holds the message alone."""
        return type(self), (self.extra, self._needed_for)


class CheckpointError(RerankError):
    """A checkpoint cannot be loaded, or would give scores that mean nothing."""


class InsufficientMemoryError(RerankError, MemoryError):
    """A model does not fit into the memory that is left; the checkpoint may be sound."""


class IndexFormatError(RerankError):
    """A path is not an index, or the index on it is damaged or of an unknown format."""


class IndexExistsError(RerankError, FileExistsError):
    """An index stands where one was to be created, and ``overwrite`` was not asked for."""


class IndexReadOnlyError(RerankError):
    """A write was asked of an index that was opened with ``read_only=True``."""


class IndexClosedError(RerankError):
    """The index was closed before this call."""


class IndexWriteError(RerankError, OSError):
    """The operating system refused a write (disk full, permissions); the last commit stands."""


class IndexReadError(RerankError, OSError):
    """The operating system refused a read (open files, memory, permissions); the index itself may be sound."""


class IndexMovedError(RerankError):
    """The folder of an open index was moved, replaced or removed; nothing was written or removed there."""


class ModelMismatchError(RerankError):
    """The index was built with another model, so its vectors cannot be compared."""


class IndexLockedError(RerankError):
    """Another writer holds the index."""


class TextTooLongError(RerankError, ValueError):
    """A text is longer than the model reads, and ``strict`` forbids to cut it; nothing was scored."""


class TruncationWarning(UserWarning):
    """Some texts were longer than the model reads, and were cut."""


class FidelityWarning(UserWarning):
    """A converted graph strays from torch on this processor, so something slower computes in its place."""


# The package's own files, and the module whose frames lie between them where a context manager is used.
_INTERNAL = (str(Path(__file__).parent) + os.sep, contextlib.__file__)


def warn_user(message: str, category: type[Warning]) -> None:
    """Issue a warning that names the innermost line outside this package: the line that the user wrote."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INTERNAL):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
