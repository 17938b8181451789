"""`PUT /v1/files`: a file's passages, within the settings of the service."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from service import PASSAGES

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.files import read_files
from rerank_integrations.server import ServerSettings, create_app

ROWS = b"id,text,year\na,the first row,2024\nb,the second row,2023\n"


def put(client: TestClient, name: str, content: bytes) -> tuple[int, dict[str, object]]:
    response = client.put("/v1/files", params={"name": name}, content=content)
    return response.status_code, response.json()


def test_the_rows_of_a_table_are_stored(client: TestClient, index: ColBERTIndex) -> None:
    assert put(client, "rows.csv", ROWS) == (200, {"index": "toy", "name": "rows.csv", "passages": 2, "removed": 0})
    first, second = index.get(["a", "b"])
    assert (first.text, second.text) == ("the first row", "the second row")
    assert first.metadata == {"source": "rows.csv", "year": "2024"}


def test_a_file_takes_the_place_of_an_earlier_one_of_its_name(client: TestClient, index: ColBERTIndex) -> None:
    put(client, "rows.csv", ROWS)
    put(client, "other.csv", b"id,text\nc,another file\n")
    status, stored = put(client, "rows.csv", b"id,text\nb,the second row again\n")
    assert (status, stored["passages"], stored["removed"]) == (200, 1, 1)
    assert sorted(index.ids()) == sorted([*(passage.id for passage in PASSAGES), "b", "c"])
    assert index.get(["b"])[0].text == "the second row again"


@pytest.fixture(scope="module")
def colbert_index(colbert: ColBERTModel) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, colbert) as index:
        yield index


def test_a_text_is_split_as_the_reader_of_files_does(
    colbert_index: ColBERTIndex, colbert: ColBERTModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "# Borrowing\n\n" + "\n\n".join(f"Rule {number}: a book is lent for {number} weeks." for number in range(60))
    path = tmp_path_factory.mktemp("files") / "rules.md"
    path.write_text(text, "utf-8")
    expected = list(read_files(path, colbert))
    with TestClient(
        create_app({"docs": colbert_index}, settings=ServerSettings(writable=True, warm_up=False))
    ) as client:
        status, stored = put(client, "rules.md", text.encode())
        assert (status, stored["passages"]) == (200, len(expected))
        assert len(expected) > 1
        assert colbert_index.get([passage.id for passage in expected]) == expected
        # It is closed with the application, which is the last test of this index.


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("rows.csv", b"id,text\na,b,c\n", "rows.csv, line 2"),
        ("lines.jsonl", b"{", "lines.jsonl, line 1"),
        ("empty.csv", b"", "empty.csv contains no text"),
        ("a.csv", b"text\n\xff\n", "a.csv, line 2"),
        ("page.exe", b"text", "page.exe is of a kind"),
        ("rows.csv.gz", b"", "rows.csv.gz is of a kind"),
        ("nothing", b"text", "nothing is of a kind"),
        ("", b"text", "name"),
        ("../rows.csv", ROWS, "name"),
        ("..\\rows.csv", ROWS, "name"),
        ("a\0.csv", ROWS, "name"),
        ("a\n.csv", ROWS, "name"),
        ("a\u202ecsv.md", ROWS, "name"),
        (f"{'a' * 300}.csv", ROWS, "name"),
        ("notes.md", b"# Notes", "ColBERTModel"),
        ("many.csv", b"text\n" + b"a\n" * 1001, "1001 passages; expected at most 1000"),
        ("report.docx", b"no archive", "report.docx"),
        ("report.pdf", b"no PDF", "report.pdf"),
    ],
    ids=[
        "row of another length",
        "no JSON",
        "empty",
        "no UTF-8",
        "unknown kind",
        "compressed",
        "no suffix",
        "no name",
        "folder",
        "folder of Windows",
        "NUL",
        "line feed",
        "text from right to left",
        "long name",
        "encoder that cannot split",
        "too many passages",
        "no DOCX",
        "no PDF",
    ],
)
def test_a_file_that_cannot_be_read_stores_nothing(
    client: TestClient, index: ColBERTIndex, name: str, content: bytes, named: str
) -> None:
    if name.startswith("report"):
        pytest.importorskip("pypdf")
        pytest.importorskip("mammoth")
    status, answer = put(client, name, content)
    assert (status, answer["code"]) == (422, "invalid_input")
    assert named in str(answer["message"])
    assert "upload" not in str(answer["message"])
    assert len(index) == len(PASSAGES)


def test_of_two_files_of_one_name_at_a_time_one_remains(client: TestClient, index: ColBERTIndex) -> None:
    contents = [f"id,text\n{letter}1,a text\n{letter}2,another text\n".encode() for letter in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(lambda content: put(client, "rows.csv", content), contents))
    assert [status for status, _ in stored] == [200] * 4
    assert sorted(index.ids({"source": "rows.csv"})) in [[f"{letter}1", f"{letter}2"] for letter in "abcd"]


def test_a_read_only_service_takes_no_files(index: ColBERTIndex) -> None:
    with TestClient(create_app({"toy": index}, settings=ServerSettings(warm_up=False))) as client:
        status, answer = put(client, "rows.csv", ROWS)
    assert (status, answer["code"]) == (403, "read_only")


def test_a_file_is_no_larger_than_a_body(index: ColBERTIndex) -> None:
    settings = ServerSettings(writable=True, warm_up=False, max_body_bytes=20)
    with TestClient(create_app({"toy": index}, settings=settings)) as client:
        status, answer = put(client, "rows.csv", ROWS)
        assert (status, answer["code"]) == (413, "body_too_large")
        chunked = client.put("/v1/files", params={"name": "rows.csv"}, content=iter([ROWS[:15], ROWS[15:]]))
        assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")
        assert client.get("/v1/indexes").json()["indexes"][0]["passages"] == len(PASSAGES)


def test_a_name_may_have_any_script(client: TestClient, index: ColBERTIndex) -> None:
    assert put(client, "图书馆 规则.csv", "text\n一本书可以借四周\n".encode())[0] == 200
    assert index.get(["图书馆 规则.csv#1"])[0].text == "一本书可以借四周"
