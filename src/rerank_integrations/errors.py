"""The exceptions and warnings that this package raises on purpose.

::

    RerankError
    ├── InvalidInputError        (ValueError)
    ├── MissingExtraError        (ImportError)
    ├── CheckpointError
    ├── InsufficientMemoryError  (MemoryError)
    ├── ModelMismatchError
    ├── RemoteError
    ├── TextTooLongError         (ValueError)
    ├── IndexClosedError
    ├── IndexExistsError         (FileExistsError)
    ├── IndexFormatError
    ├── IndexLockedError
    ├── IndexMovedError
    ├── IndexReadError           (OSError)
    ├── IndexReadOnlyError
    └── IndexWriteError          (OSError)

    UserWarning
    ├── FidelityWarning
    └── TruncationWarning

The class in parentheses is a second base, so that code which catches Python's own exception catches this one too.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path


class RerankError(Exception):
    """Base class of every error that this package raises on purpose."""


class InvalidInputError(RerankError, ValueError):
    """An argument has the wrong type or value; nothing was stored or changed."""


class MissingExtraError(RerankError, ImportError):
    """An optional dependency is missing; the message names the exact ``pip install`` command."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an extra: pip install 'rerank-integrations[{extra}]'")
        self.extra = extra
        self._needed_for = needed_for

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """Pickle the constructor's arguments, because `args` contains only the finished message."""
        return type(self), (self.extra, self._needed_for)


class CheckpointError(RerankError):
    """A checkpoint cannot be loaded, or its scores would be meaningless."""


class InsufficientMemoryError(RerankError, MemoryError):
    """A model does not fit into the available memory; the checkpoint may be sound."""


class ModelMismatchError(RerankError):
    """The index was built with another model, so its vectors cannot be compared with those of this one."""


class RemoteError(RerankError):
    """A remote service gave no scores: it could not be reached, refused the request, or gave an unusable answer.

    The message names the service without credentials, and says what to do.

    Parameters
    ----------
    message
        The message.
    status
        The HTTP status of the last answer; ``None`` if none came.
    retry_after
        Seconds after which the service wants to be asked again, if it says so.
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, int | None, float | None]]:
        """Pickle the constructor's arguments, because `args` contains only the message."""
        return type(self), (str(self), self.status, self.retry_after)


class TextTooLongError(RerankError, ValueError):
    """A text is longer than the model reads, and ``strict`` forbids truncation; nothing was scored."""


class IndexClosedError(RerankError):
    """The index was closed before this call."""


class IndexExistsError(RerankError, FileExistsError):
    """An index already exists at the path, and ``overwrite`` is False."""


class IndexFormatError(RerankError):
    """The path is not an index, or the index is damaged or of an unknown format."""


class IndexLockedError(RerankError):
    """Lock of another writer on the index."""


class IndexMovedError(RerankError):
    """The folder of an open index was moved, replaced or removed; nothing was written or removed there."""


class IndexReadError(RerankError, OSError):
    """The operating system refused a read (open files, memory, permissions); the index itself may be sound."""


class IndexReadOnlyError(RerankError):
    """The index was opened with ``read_only=True`` and cannot be written."""


class IndexWriteError(RerankError, OSError):
    """The operating system refused a write (disk full, permissions); the last commit is intact."""


class FidelityWarning(UserWarning):
    """A converted graph deviates from torch on this processor, so a slower backend computes in its place."""


class TruncationWarning(UserWarning):
    """Truncation of texts that were longer than the model reads."""


# The package's own files, and the module whose frames lie between them where a context manager is used.
_INTERNAL = (str(Path(__file__).parent) + os.sep, contextlib.__file__)


def warn_user(message: str, category: type[Warning]) -> None:
    """Issue a warning that names the innermost line outside this package: the line that the user wrote."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INTERNAL):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
