"""Passages of files: a line of JSONL or a row of CSV each, or the chunks of a text with their place in it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rerank_integrations.core.checks import whole_number
from rerank_integrations.core.jsonl import open_bytes, read_jsonl
from rerank_integrations.core.models import ColBERTModel, TokenEncoder, as_colbert_model
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import InvalidInputError, MissingExtraError
from rerank_integrations.files.encodings import gzip_errors, open_text, require_encoding
from rerank_integrations.files.sources import FileKind, SourceFile, find_files
from rerank_integrations.files.tables import read_table

if TYPE_CHECKING:
    from rerank_integrations.files.chunks import ChunkSplitter

MIN_CHUNK_TOKENS = 16
_CHARACTERS_PER_READ = 1 << 16
_BYTES_PER_READ = 1 << 20
# The distributions that passages depend on.
_PACKAGE, _SPLITTER = "rerank-integrations", "semantic-text-splitter"
_READERS: dict[FileKind, tuple[str, ...]] = {
    "pdf": ("pypdf",),
    "html": ("beautifulsoup4", "markdownify"),
    "docx": ("mammoth", "beautifulsoup4", "markdownify"),
}

# Builds the splitter when the first text is split, because it loads the model.
SplitterFactory: TypeAlias = "Callable[[], ChunkSplitter]"


@dataclass(frozen=True)
class ReadingOptions:
    """Options of reading files; ``None`` is the default of each.

    Parameters
    ----------
    chunk_tokens, chunk_overlap
        As `size` and `overlap` of `chunks.chunk_splitter`.
    text_column, id_column
        As for `tables.read_table`.
    encoding
        The encoding of files of text, CSV and HTML that are not UTF-8 and do not declare another.

    Raises
    ------
    InvalidInputError
        If a value cannot be meant for any model or file.
    """

    chunk_tokens: int | None = None
    chunk_overlap: int | None = None
    text_column: str | None = None
    id_column: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.chunk_tokens is not None:
            whole_number(self.chunk_tokens, "chunk_tokens", MIN_CHUNK_TOKENS)
        if self.chunk_overlap is not None:
            whole_number(self.chunk_overlap, "chunk_overlap", 0)
        require_encoding(self.encoding)

    def chosen(self) -> dict[str, Any]:
        """Return the options that are not left at their defaults."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class ExtractedText:
    """The text of a file.

    Parameters
    ----------
    text
        Plain text, or Markdown if the file is Markdown, HTML or DOCX. The offsets ``start`` and ``end`` in the metadata
        of passages count its characters.
    title
        The title that the file declares, or an empty string.
    page_starts
        The character of `text` at which each page begins; empty unless the file is a PDF.
    """

    text: str
    title: str = ""
    page_starts: list[int] = field(default_factory=list)


@dataclass
class _Document:
    """A file that is being read: the parts of its text, and the starts of pages as far as parts were read."""

    parts: Iterable[str]
    markdown: bool = False
    title: str = ""
    page_starts: list[int] = field(default_factory=list)


def read_passages(file: SourceFile, options: ReadingOptions, splitter: SplitterFactory) -> Iterator[Passage]:
    """Yield the passages of one file.

    A line of JSONL (see `core.jsonl.parse_passage`) or a row of CSV (see `tables.read_table`) is one passage. Other
    texts are split into chunks with the ids ``name#1``, ``name#2`` and so on. Their metadata has ``start`` and ``end``
    in characters of the extracted text, the ``page`` of a PDF on which the chunk starts, and the ``title``, if any.

    Raises
    ------
    InvalidInputError
        If the file cannot be read; the message names the file, and the line if there is one.
    MissingExtraError
        If the file is a PDF, HTML or DOCX file, and its reader is not installed.
    """
    if file.kind == "jsonl":
        yield from read_jsonl(file.path, source=file.name)
    elif file.kind in ("csv", "tsv"):
        delimiter = "\t" if file.kind == "tsv" else None
        columns = {"text_column": options.text_column, "id_column": options.id_column}
        yield from read_table(file.path, file.name, delimiter=delimiter, encoding=options.encoding, **columns)
    else:
        with _open_document(file, options.encoding) as document:
            chunks = splitter().split(document.parts, markdown=document.markdown)
            for number, (start, text) in enumerate(chunks, start=1):
                place: dict[str, Any] = {"title": document.title} if document.title else {}
                if document.page_starts:
                    place["page"] = bisect_right(document.page_starts, start)
                place |= {"start": start, "end": start + len(text)}
                yield Passage(f"{file.name}#{number}", text, {"source": file.name, **place})


def read_files(
    sources: str | Path | Iterable[str | Path],
    model: str | Path | ColBERTModel = "colbert-ir/colbertv2.0",
    *,
    chunk_tokens: int | None = None,
    chunk_overlap: int | None = None,
    text_column: str | None = None,
    id_column: str | None = None,
    encoding: str | None = None,
    on_error: Callable[[Path, Exception], object] | None = None,
) -> Iterator[Passage]:
    """Yield the passages of files and folders, as the command ``index`` reads them.

    PDF, HTML and DOCX need the extra ``[files]``; JSONL in BEIR layout, CSV, TSV, Markdown and plain text need none.
    [Index files](../../how-to/index_files.md) shows how each format is read.

    Parameters
    ----------
    sources
        Paths of files and of folders, which are searched recursively.
    model
        The model of the index, whose tokens are counted; it is loaded when the first text is split.
    chunk_tokens
        The most tokens in a chunk, at least 16; by default 256, or fewer if `model` reads fewer.
    chunk_overlap
        The most tokens that a chunk shares with the one before; by default an eighth of a chunk.
    text_column, id_column
        Columns of CSV files; by default ``text``, and ``_id`` or ``id``.
    encoding
        The encoding of text, CSV and HTML files that are not UTF-8 and do not declare another.
    on_error
        A function that is called with a file that cannot be read and its error; the passages of the other files still
        come. By default the error is raised.

    Raises
    ------
    InvalidInputError
        For arguments of wrong types or values, and for a file that cannot be read.
    MissingExtraError
        For a file whose reader is not installed.
    """
    options = ReadingOptions(chunk_tokens, chunk_overlap, text_column, id_column, encoding)
    files = find_files(_as_paths(sources))
    return _passages(files, options, splitter_factory(model, options), on_error)


def extract_text(path: str | Path, encoding: str | None = None) -> ExtractedText:
    """Return the text of one PDF, HTML, DOCX, Markdown or text file, as `read_files` splits it.

    Parameters
    ----------
    encoding
        As for `read_files`.

    Raises
    ------
    InvalidInputError
        If the file is of another kind or cannot be read.
    MissingExtraError
        If the reader of the format is not installed.
    """
    require_encoding(encoding)
    (file,) = find_files(_as_paths(path))
    if file.kind in ("jsonl", "csv", "tsv"):
        raise InvalidInputError(f"{path} is a table of passages; expected a PDF, HTML, DOCX, Markdown or text file")
    with _open_document(file, encoding) as document:
        text = "".join(document.parts)
        return ExtractedText(text, document.title, document.page_starts)


def splitter_factory(model: str | Path | TokenEncoder, options: ReadingOptions) -> SplitterFactory:
    """Return a function that builds the splitter for `model` at its first call, and loads the model for that.

    The function raises `InvalidInputError` if `model` cannot count tokens, or the options do not suit it.
    """

    @functools.cache
    def splitter() -> ChunkSplitter:
        # Imported here, because the command line is imported by commands that split nothing.
        from rerank_integrations.files.chunks import chunk_splitter

        encoder = as_colbert_model(model)
        if not isinstance(encoder, ColBERTModel):
            raise InvalidInputError(f"model is of type {type(model).__name__}; expected a ColBERTModel to split texts")
        return chunk_splitter(encoder, options.chunk_tokens, options.chunk_overlap)

    return splitter


def reading_fingerprint(file: SourceFile, options: ReadingOptions) -> str:
    """Return a digest of what a file's passages depend on: its contents, the options, the versions of the readers."""
    digest = hashlib.sha256()
    with file.path.open("rb") as stream:
        while block := stream.read(_BYTES_PER_READ):
            digest.update(block)
    libraries = [_PACKAGE, *(_READERS.get(file.kind, ())), *([_SPLITTER] if is_chunked(file) else [])]
    digest.update(json.dumps([file.kind, options.chosen(), [_version(name) for name in libraries]]).encode())
    return digest.hexdigest()[:32]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def is_chunked(file: SourceFile) -> bool:
    """Return whether the text of a file is split into chunks, for which its model is loaded."""
    return file.kind not in ("jsonl", "csv", "tsv")


def _passages(
    files: Iterable[SourceFile],
    options: ReadingOptions,
    splitter: SplitterFactory,
    on_error: Callable[[Path, Exception], object] | None,
) -> Iterator[Passage]:
    for file in files:
        if is_chunked(file):
            # An error of the model is none of the file.
            splitter()
        try:
            yield from read_passages(file, options, splitter)
        except (InvalidInputError, MissingExtraError, OSError) as error:
            if on_error is None:
                raise
            on_error(file.path, error)


def _as_paths(sources: str | Path | Iterable[str | Path]) -> list[Path]:
    paths = [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    for path in paths:
        if not path.exists():
            raise InvalidInputError(f"{path} does not exist; expected a file or a folder")
    return paths


# --- one document ---


@contextlib.contextmanager
def _open_document(file: SourceFile, encoding: str | None) -> Iterator[_Document]:
    """Open a file whose text is split into chunks."""
    if file.kind in ("text", "markdown"):
        with open_text(file.path, encoding) as stream:
            yield _Document(iter(lambda: stream.read(_CHARACTERS_PER_READ), ""), markdown=file.kind == "markdown")
        return
    try:
        from rerank_integrations.files import formats
    except ModuleNotFoundError as error:
        raise MissingExtraError("files", f"{file.path}: reading {file.kind.upper()}") from error
    if file.kind == "html":
        with gzip_errors(file.path), open_bytes(file.path) as data:
            title, text = formats.read_html(file.path, data.read(formats.MAX_HTML_BYTES + 1), encoding)
        yield _Document([text], markdown=True, title=title)
        return
    with file.path.open("rb") as binary:
        if file.kind == "docx":
            title, text = formats.read_docx(file.path, binary)
            yield _Document([text], markdown=True, title=title)
        else:
            pdf = formats.PdfText(file.path, binary)
            page_starts: list[int] = []
            yield _Document(_joined_pages(pdf.pages(), page_starts), title=pdf.title, page_starts=page_starts)


def _joined_pages(pages: Iterable[str], page_starts: list[int]) -> Iterator[str]:
    """Yield the texts of pages with a blank line between them, and add the start of each to `page_starts`."""
    offset = 0
    for page in pages:
        page_starts.append(offset)
        yield f"{page}\n\n"
        offset += len(page) + 2
