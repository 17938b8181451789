"""PDF, HTML and DOCX files, made here with known text, and files that are broken or hostile."""

from __future__ import annotations

import logging
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from fpdf import FPDF
from fpdf.enums import EncryptionMethod
from PIL import Image

from rerank_integrations import ColBERTModel, InvalidInputError, MissingExtraError, Passage
from rerank_integrations.files import extract_text, read_files


@pytest.fixture
def model(colbert_dir: Path) -> ColBERTModel:
    return ColBERTModel(colbert_dir)


def _pdf(*pages: str) -> FPDF:
    pdf = FPDF()
    pdf.set_font("helvetica", size=12)
    for page in pages:
        pdf.add_page()
        if page:
            pdf.multi_cell(0, text=page)
    return pdf


def _picture(folder: Path) -> str:
    path = folder / "picture.png"
    Image.new("RGB", (20, 20)).save(path)
    return str(path)


def _problem(path: Path) -> str:
    with pytest.raises(InvalidInputError) as raised:
        extract_text(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# --- PDF ---


def test_chunks_of_a_pdf_have_page_title_and_place(tmp_path: Path, model: ColBERTModel) -> None:
    path = tmp_path / "report.pdf"
    pdf = _pdf("The river rose.", "", "The river fell. " * 40, "Nobody saw it.")
    pdf.set_title("Café report")
    pdf.output(str(path))
    extracted = extract_text(path)
    assert extracted.title == "Café report"
    pages = [
        extracted.text[start:end].split()
        for start, end in zip(extracted.page_starts, [*extracted.page_starts[1:], None], strict=True)
    ]
    assert pages == [["The", "river", "rose."], [], ["The", "river", "fell."] * 40, ["Nobody", "saw", "it."]]
    passages = list(read_files(path, model, chunk_tokens=20))
    assert [passage.id for passage in passages] == [f"report.pdf#{number}" for number in range(1, len(passages) + 1)]
    for passage in passages:
        start, page = passage.metadata["start"], passage.metadata["page"]
        assert extracted.text[start : passage.metadata["end"]] == passage.text
        assert extracted.page_starts[page - 1] <= start < [*extracted.page_starts, len(extracted.text)][page]
        assert passage.metadata["title"] == "Café report"
        assert passage.metadata["source"] == "report.pdf"
    assert {passage.metadata["page"] for passage in passages} == {1, 3, 4}
    assert max(model.token_counts([passage.text for passage in passages])) <= 20


def test_a_pdf_that_opens_without_a_password_is_read(tmp_path: Path) -> None:
    path = tmp_path / "owned.pdf"
    pdf = _pdf("Printing is not allowed.")
    pdf.set_encryption(owner_password="secret", encryption_method=EncryptionMethod.AES_256)
    pdf.output(str(path))
    assert extract_text(path).text.strip() == "Printing is not allowed."


def test_a_pdf_with_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.pdf"
    pdf = _pdf("Nobody reads this.")
    pdf.set_encryption(owner_password="owner", user_password="user", encryption_method=EncryptionMethod.AES_128)
    pdf.output(str(path))
    assert _problem(path) == "is encrypted; expected a PDF that opens without a password"


def test_a_scanned_pdf_is_refused_and_a_picture_among_pages_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "scan.pdf"
    pdf = _pdf("")
    pdf.image(_picture(tmp_path))
    pdf.output(str(path))
    assert _problem(path) == "contains no text but pictures: let an OCR program add their text to the file"
    _pdf("").output(str(path))
    assert _problem(path) == "contains no text"
    pdf = _pdf("Words.", "")
    pdf.image(_picture(tmp_path))
    pdf.output(str(path))
    with caplog.at_level(logging.WARNING):
        assert extract_text(path).text.strip() == "Words."
    assert caplog.messages == [f"{path}: contains pictures without text, which are not read (pages: 2)"]


@pytest.mark.parametrize("damage", [lambda data: b"x", lambda data: b"", lambda data: data[: len(data) // 2]])
def test_a_broken_pdf_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "broken.pdf"
    path.write_bytes(damage(bytes(_pdf("Some words.", "More words.").output())))
    assert _problem(path).startswith("cannot be read as PDF (")


def test_repairs_of_a_pdf_are_reported_with_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "repaired.pdf"
    data = bytes(_pdf("Some words.").output())
    start = data.rindex(b"startxref\n") + 10
    path.write_bytes(data[:start] + b"1" + data[start:])
    with caplog.at_level(logging.WARNING):
        assert extract_text(path).text.strip() == "Some words."
    assert caplog.messages
    assert all(message.startswith(f"{path}: text may be missing: ") for message in caplog.messages)


# --- HTML ---

PAGE = """<!doctype html><html><head><title>A
 page</title><style>p {color: red}</style><script src="http://127.0.0.1:9/x.js">alert(1)</script></head>
<body><!-- hidden --><h1>Top</h1><p>Some <b>bold</b> words, a <a href="http://127.0.0.1:9/">link</a> &amp; a_b*c.</p>
<img src="http://127.0.0.1:9/x.png" alt="a river"><template>no</template><h2>Table</h2>
<table><tr><th>n</th></tr><tr><td>1</td></tr></table><pre>x  =  1</pre></body></html>"""


def test_html_is_read_as_markdown(tmp_path: Path, model: ColBERTModel) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGE, "utf-8")
    extracted = extract_text(path)
    assert extracted.title == "A page"
    assert extracted.text == (
        "# Top\n\nSome **bold** words, a link & a_b*c.\n\na river\n\n## Table\n\n| n |\n| --- |\n| 1 |\n\n"
        "```\nx  =  1\n```"
    )
    (passage,) = read_files(path, model, chunk_tokens=model.document_limit())
    place = {"title": "A page", "start": 0, "end": len(extracted.text)}
    assert passage == Passage("page.html#1", extracted.text, {"source": "page.html", **place})


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("<p>café</p>".encode(), None),
        ("<p>café</p>".encode("utf-16"), None),
        ("<meta charset=windows-1252><p>café</p>".encode("cp1252"), None),
        ('<meta http-equiv=content-type content="text/html; charset=iso-8859-1"><p>café</p>'.encode("cp1252"), None),
        ("<meta charset=no-such><p>café</p>".encode(), None),
        ("<p>café</p>".encode("cp1252"), "cp1252"),
    ],
)
def test_the_encoding_of_html(tmp_path: Path, data: bytes, encoding: str | None) -> None:
    path = tmp_path / "page.htm"
    path.write_bytes(data)
    assert extract_text(path, encoding).text == "café"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("<p>café</p>".encode("cp1252"), "not UTF-8; expected UTF-8, the encoding that the page declares, or its"),
        (b"<div>" * 5000 + b"x", "cannot be read as HTML (its contents are nested too deep)"),
        (b"<script>x</script>", "contains no text"),
        (b"x" * (2**24 + 1), "is larger than 16,777,216 bytes, which is the most for HTML"),
    ],
)
def test_html_that_cannot_be_read(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(data)
    assert _problem(path).startswith(problem)


# --- DOCX ---


def _write_docx(path: Path) -> None:
    document = docx.Document()
    document.core_properties.title = "A  report"
    document.add_heading("Results", 1)
    document.add_paragraph("The profit grew < 5 % & more.")
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("second", style="List Bullet")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    document.add_picture(_picture(path.parent))
    document.save(str(path))


def test_docx_is_read_as_markdown(tmp_path: Path, model: ColBERTModel) -> None:
    path = tmp_path / "report.docx"
    _write_docx(path)
    extracted = extract_text(path)
    assert extracted.title == "A report"
    assert extracted.text.startswith("# Results\n\nThe profit grew < 5 % & more.\n\n* first\n* second\n\n")
    assert "| left | right |" in extracted.text
    assert "base64" not in extracted.text
    (passage,) = read_files(path, model, chunk_tokens=model.document_limit())
    assert passage.text == extracted.text.strip()
    assert passage.metadata == {
        "source": "report.docx",
        "title": "A report",
        "start": 0,
        "end": len(passage.text),
    }


def _replace_part(path: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in {**parts, name: data}.items():
            archive.writestr(part, content)


@pytest.mark.parametrize("name", ["word/document.xml", "word/media/image9.png"])
def test_a_docx_that_would_fill_the_memory_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb.docx"
    _write_docx(path)
    _replace_part(path, name, b" " * 2**26)
    assert "bytes; expected at most 67,108,864" in _problem(path)


def test_entities_of_a_docx_are_not_expanded(tmp_path: Path) -> None:
    path, secret = tmp_path / "laughs.docx", tmp_path / "secret.txt"
    secret.write_text("swordfish", "utf-8")
    _write_docx(path)
    laughs = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    body = '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>'
    end = "</w:t></w:r></w:p></w:body></w:document>"
    _replace_part(path, "word/document.xml", f'<!DOCTYPE w [<!ENTITY l0 "ha">{laughs}]>{body}&l9;{end}'.encode())
    assert _problem(path).startswith("cannot be read as DOCX (")
    external = f'<!DOCTYPE w [<!ENTITY x SYSTEM "{secret.as_uri()}">]>{body}before &x; after{end}'
    _replace_part(path, "word/document.xml", external.encode())
    assert "swordfish" not in extract_text(path).text


@pytest.mark.parametrize("data", [b"", b"x", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 an encrypted file"])
def test_what_is_no_docx_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "no.docx"
    path.write_bytes(data)
    assert _problem(path).startswith("is not a DOCX file, or is encrypted (")


# --- the extra ---


@pytest.mark.parametrize("name", ["a.pdf", "a.html", "a.docx"])
def test_a_missing_reader_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    monkeypatch.delitem(sys.modules, "rerank_integrations.files.formats", raising=False)
    monkeypatch.delattr("rerank_integrations.files.formats", raising=False)
    monkeypatch.setitem(sys.modules, "mammoth", None)
    with pytest.raises(MissingExtraError) as raised:
        extract_text(path)
    assert str(raised.value) == (
        f"{path}: reading {name[2:].upper()} needs an extra: pip install 'rerank-integrations[files]'"
    )


# --- chunks of a model's tokens ---


def test_no_chunk_is_longer_than_the_model_reads(tmp_path: Path, model: ColBERTModel, recwarn: object) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("The river rose after the rain, and nobody saw it. 中文没有空格。" * 50, "utf-8")
    texts = [passage.text for passage in read_files(path, model)]
    assert len(texts) > 1
    assert max(model.token_counts(texts)) <= model.document_limit()
    short = ColBERTModel(model.name, document_length=20)
    assert max(model.token_counts([passage.text for passage in read_files(path, short)])) <= 20


def test_chunks_that_the_model_would_cut_are_refused(tmp_path: Path, model: ColBERTModel) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("words", "utf-8")
    limit = model.document_limit()
    with pytest.raises(InvalidInputError, match=rf"chunk_tokens is {limit + 1}; expected at most {limit}"):
        list(read_files(path, model, chunk_tokens=limit + 1))
    with pytest.raises(InvalidInputError, match=r"chunk_overlap is 9; expected at most half of a chunk of 16 tokens"):
        list(read_files(path, model, chunk_tokens=16, chunk_overlap=9))
