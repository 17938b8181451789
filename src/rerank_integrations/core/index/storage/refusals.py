"""Errors for refusals of the operating system: too many open files, or no permission, is no damage."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from rerank_integrations.errors import IndexFormatError, IndexReadError

# Errors by what stands at a path, such as a file where a folder should be, or a link in a circle.
_WRONG_KIND = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


def refused_read(error: OSError, path: Path) -> IndexReadError | IndexFormatError:
    """Return the exception for an `error` of the operating system while reading `path`."""
    if error.errno in _WRONG_KIND:
        return IndexFormatError(f"{path} is damaged: {error}")
    return _refusal(path, error)


def is_file(path: Path) -> bool:
    """Return whether a file stands at `path`; a folder that this user may not list is not called empty.

    Raises
    ------
    IndexReadError
        If the operating system does not say.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in _WRONG_KIND:
            return False
        raise _refusal(path, error) from error


def is_there(path: Path) -> bool:
    """Return whether anything stands at `path` that this user can see."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def cause(error: OSError) -> str:
    """Return why the operating system refused, with the limit and what to do where that is known."""
    if error.errno == errno.EMFILE:
        return (
            f"this process has as many files open as it may ({_open_files()}, `ulimit -n`); raise the limit, or close "
            "what is not needed"
        )
    if error.errno == errno.ENFILE:
        return "the machine has as many files open as it may (`sysctl fs.file-max`); raise the limit, or close some"
    if error.errno == errno.ENOMEM:
        return (
            f"there is no memory for it ({error.strerror}); free some, or raise the limit of this process (`ulimit -v`,"
            " the container's)"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user has no permission ({error.strerror}); grant it, or run as a user who has it"
    return str(error)


def lacking_for_read(path: Path) -> IndexReadError | None:
    """Return the error that keeps this process from opening the file at `path`; ``None`` if nothing does.

    SQLite says no more than that it could not open a file. The file itself is not opened here: closing it would release
    the locks that SQLite has on it in this process.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return _refusal(path, error)
    try:
        path.stat()
    except PermissionError as error:
        return _refusal(path, error)
    except OSError:
        return None
    if not os.access(path, os.R_OK):
        return _refusal(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    log, shared = Path(f"{path}-wal"), Path(f"{path}-shm")
    if is_there(log) and not is_there(shared) and not os.access(path.parent, os.W_OK):
        return IndexReadError(
            f"{path} cannot be read: {log} holds commits that have yet to be copied into it, as after a writer that "
            "was killed, and SQLite needs to make a file beside them; make the folder writable, or open a writable "
            "copy of it once. The index itself may be sound."
        )
    return None


def _refusal(path: Path, error: OSError) -> IndexReadError:
    return IndexReadError(f"{path} cannot be read: {cause(error)}. The index itself may be sound.")


def _open_files() -> str:
    try:
        import resource
    except ImportError:
        # Windows.
        return "its limit"
    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
