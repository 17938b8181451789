"""Text of PDF, HTML and DOCX files, by the readers of the extra ``[files]``; no file makes them fetch anything."""

from __future__ import annotations

import contextlib
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

import mammoth
from bs4 import BeautifulSoup, Tag
from bs4.dammit import EncodingDetector
from markdownify import ATX, MarkdownConverter
from pypdf import PageObject, PdfReader

from rerank_integrations.errors import InvalidInputError, RerankError
from rerank_integrations.files.encodings import marked_encoding

_LOGGER = logging.getLogger(__name__)

MAX_HTML_BYTES = 1 << 24
# The decompressed contents of a DOCX file without its pictures. Its tree takes some twenty times as much memory.
MAX_DOCX_XML_BYTES = 1 << 26
# Browsers read these names as the larger encodings, by the WHATWG's standard of encodings.
_SUPERSETS = {"ascii": "cp1252", "us-ascii": "cp1252", "iso-8859-1": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}
# Pictures in a DOCX file are compressed already. A part that shrinks more may be XML under the name of a picture.
_MAX_PICTURE_RATIO = 10
_NEVER_SHOWN = ("script", "style", "template")
_MAX_REPORTED = 3


@contextlib.contextmanager
def parser_errors(path: Path, kind: str) -> Iterator[None]:
    """Raise `InvalidInputError`, which names the file, in place of whatever a reader raises for a broken file."""
    try:
        yield
    except (RerankError, OSError):
        raise
    except RecursionError as error:
        raise InvalidInputError(f"{path}: cannot be read as {kind} (its contents are nested too deep)") from error
    # Readers of damaged files raise errors of every class.
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise InvalidInputError(f"{path}: cannot be read as {kind} ({message})") from error


# --- PDF ---


class PdfText:
    """The text of a PDF, page by page.

    Parameters
    ----------
    stream
        The open file.

    Raises
    ------
    InvalidInputError
        If the file is no PDF, is damaged beyond repair, or asks for a password.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        self._complaints = _Complaints()
        with parser_errors(path, "PDF"), self._complaints:
            self._reader = PdfReader(stream)
            if self._reader.is_encrypted and not self._reader.decrypt(""):
                raise InvalidInputError(f"{path}: is encrypted; expected a PDF that opens without a password")
            title = self._reader.metadata.title if self._reader.metadata else None
            self.title: str = _valid_unicode(title).strip() if isinstance(title, str) else ""
            self._count = len(self._reader.pages)

    def pages(self) -> Iterator[str]:
        """Yield the text of each page; log the pages that have pictures only, and repairs that may have lost text."""
        empty, pictures = 0, []
        for number in range(self._count):
            with parser_errors(self._path, f"PDF, page {number + 1}"), self._complaints:
                page = self._reader.pages[number]
                text = _valid_unicode(page.extract_text())
                if not text.strip():
                    empty += 1
                    pictures += [str(number + 1)] if _has_pictures(page) else []
            yield text
        if empty == self._count:
            advice = " but pictures: let an OCR program add their text to the file" if pictures else ""
            raise InvalidInputError(f"{self._path}: contains no text{advice}")
        if pictures:
            _LOGGER.warning(
                "%s: contains pictures without text, which are not read (pages: %s)", self._path, _listed(pictures)
            )
        if self._complaints.messages:
            _LOGGER.warning("%s: text may be missing: %s", self._path, _listed(self._complaints.messages))


class _Complaints(logging.Handler):
    """A context in which pypdf's own warnings, which name no file, are collected instead of logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._logger = logging.getLogger("pypdf")

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.messages:
            self.messages.append(message)

    def __enter__(self) -> None:
        self._logger.addHandler(self)
        self._propagated, self._logger.propagate = self._logger.propagate, False

    def __exit__(self, *_: object) -> None:
        self._logger.propagate = self._propagated
        self._logger.removeHandler(self)


def _has_pictures(page: PageObject) -> bool:
    resources = page.get("/Resources")
    return resources is not None and "/XObject" in resources.get_object()


def _listed(items: list[str]) -> str:
    more = len(items) - _MAX_REPORTED
    return ", ".join(items[:_MAX_REPORTED]) + (f" and {more} more" if more > 0 else "")


def _valid_unicode(text: str) -> str:
    """Return the text with pairs of surrogates joined, and a replacement character for each that is alone."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# --- HTML ---


def read_html(path: Path, data: bytes, encoding: str | None) -> tuple[str, str]:
    """Return the title of an HTML page and its text as Markdown; scripts and styles are no text.

    Parameters
    ----------
    encoding
        The encoding of a page that is not UTF-8 and declares none.

    Raises
    ------
    InvalidInputError
        If the page is too large, is in another encoding, or nests too deep.
    """
    if len(data) > MAX_HTML_BYTES:
        raise InvalidInputError(f"{path}: is larger than {MAX_HTML_BYTES:,} bytes, which is the most for HTML")
    return _html_text(path, _decoded(path, data, encoding), "HTML")


def _html_text(path: Path, html: str, kind: str) -> tuple[str, str]:
    with parser_errors(path, kind):
        soup = BeautifulSoup(html, "html.parser")
        title = " ".join(soup.title.get_text().split()) if soup.title else ""
        for tag in soup.find_all(["title", *_NEVER_SHOWN]):
            tag.decompose()
        text = _Converter(heading_style=ATX, escape_asterisks=False, escape_underscores=False).convert_soup(soup)
    if not text.strip():
        raise InvalidInputError(f"{path}: contains no text")
    return title, text


class _Converter(MarkdownConverter):
    """Converter to Markdown without addresses: of a link its text stays, of a picture the text that stands for it."""

    def convert_a(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return text

    def convert_img(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return str(el.get("alt") or "")


def _decoded(path: Path, data: bytes, encoding: str | None) -> str:
    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    candidates = [marked_encoding(data), _SUPERSETS.get(declared or "", declared), "utf-8", encoding]
    for candidate in filter(None, candidates):
        # A page may declare an encoding that it is not in, or that does not exist.
        with contextlib.suppress(UnicodeError, LookupError):
            return data.decode(candidate)
    raise InvalidInputError(
        f"{path}: not {declared or 'UTF-8'}; expected UTF-8, the encoding that the page declares, or its encoding as "
        "the option encoding"
    )


# --- DOCX ---

_CORE_PROPERTIES = "docProps/core.xml"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"


def read_docx(path: Path, stream: BinaryIO) -> tuple[str, str]:
    """Return the title of a DOCX file and its text as Markdown: headings, lists, tables, footnotes; no pictures.

    Raises
    ------
    InvalidInputError
        If the file is no DOCX, is damaged, or its contents are too large when they are decompressed.
    """
    with parser_errors(path, "DOCX"):
        try:
            with zipfile.ZipFile(stream) as archive:
                # Python's zipfile reads no more from a member than the size that was checked.
                size = sum(member.file_size for member in archive.infolist() if not _is_picture(member))
                if size > MAX_DOCX_XML_BYTES:
                    raise InvalidInputError(
                        f"{path}: its text takes {size:,} bytes; expected at most {MAX_DOCX_XML_BYTES:,}"
                    )
                title = ""
                if _CORE_PROPERTIES in archive.namelist():
                    title = ElementTree.fromstring(archive.read(_CORE_PROPERTIES)).findtext(_TITLE) or ""
        except zipfile.BadZipFile as error:
            problem = "is not a DOCX file, or is encrypted"
            raise InvalidInputError(f"{path}: {problem} ({error}); expected one without a password") from error
        stream.seek(0)
        html = mammoth.convert_to_html(stream, convert_image=mammoth.images.img_element(lambda _: {})).value
    _, text = _html_text(path, html, "DOCX")
    return " ".join(title.split()), text


def _is_picture(member: zipfile.ZipInfo) -> bool:
    small = member.file_size <= _MAX_PICTURE_RATIO * member.compress_size
    return small and member.filename.startswith("word/media/")
