"""Text files in an encoding that is known: by a byte order mark, as UTF-8, or because the user names it."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rerank_integrations.core.jsonl import open_bytes
from rerank_integrations.errors import InvalidInputError

_BLOCK_BYTES = 1 << 16
# UTF-32 comes first, because its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def require_encoding(encoding: str | None) -> None:
    """Raise `InvalidInputError` unless `encoding` is ``None`` or an encoding of text that Python knows."""
    try:
        known = encoding is None or isinstance("".encode(encoding), bytes)
    except (LookupError, ValueError, TypeError):
        known = False
    if not known:
        raise InvalidInputError(f"encoding is {encoding!r}; expected a name such as 'cp1252' or 'gb18030'")


@contextlib.contextmanager
def open_text(path: Path, encoding: str | None = None, newline: str | None = None) -> Iterator[TextIO]:
    """Open a text file, which is decompressed if its name ends in ``.gz``.

    Parameters
    ----------
    encoding
        The encoding of a file that is not UTF-8 and begins with no byte order mark.
    newline
        As for Python's `open`: by default every line ends in a line feed.

    Raises
    ------
    InvalidInputError
        If the file is in another encoding or damaged, also while it is read; the message names the file and the line.
    """
    detected = _encoding_of(path, encoding)
    with open_bytes(path) as stream, io.TextIOWrapper(stream, detected, newline=newline) as text:
        try:
            yield text
        except UnicodeError as error:
            raise InvalidInputError(f"{path}: not {detected} ({error})") from error


def marked_encoding(start: bytes) -> str | None:
    """Return the encoding that the byte order mark at the start of a file stands for, or ``None`` without a mark."""
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None)


@contextlib.contextmanager
def gzip_errors(path: Path, line: int | None = None) -> Iterator[None]:
    """Raise `InvalidInputError`, which names the file, in place of the errors of damaged gzip data."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        location = path if line is None else f"{path}, line {line}"
        raise InvalidInputError(f"{location}: damaged gzip data ({error})") from error


def _encoding_of(path: Path, otherwise: str | None) -> str:
    """Return the encoding of a file, after reading all of it once."""
    with gzip_errors(path, line=1), open_bytes(path) as stream:
        marked = marked_encoding(stream.read(4))
    if marked not in (None, "utf-8-sig"):
        return str(marked)
    problem = _utf8_problem(path)
    if problem is None:
        return "utf-8-sig"
    if otherwise is None:
        raise InvalidInputError(f"{path}, {problem}; expected UTF-8, or its encoding as the option encoding")
    return otherwise


def _utf8_problem(path: Path) -> str | None:
    """Return the line at which a file is not UTF-8 and the reason, or ``None`` if all of it is."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with open_bytes(path) as stream:
        block = b"start"
        while block:
            with gzip_errors(path, line):
                block = stream.read(_BLOCK_BYTES)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return f"line {line + error.object[: error.start].count(0x0A)}: not UTF-8 ({error.reason})"
            if "\0" in text:
                # UTF-16 without a mark is valid UTF-8 for English, with a NUL beside every letter.
                line += text.partition("\0")[0].count("\n")
                return f"line {line}: not UTF-8 (it contains NUL characters)"
            line += text.count("\n")
    return None
