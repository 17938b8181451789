"""Rows of CSV and TSV files as passages."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_integrations import InvalidInputError, Passage
from rerank_integrations.files import read_files

# Python's writer leaves some carriage returns unquoted.
CELLS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), max_size=20)


def _read(path: Path, content: str | bytes, **options: Any) -> list[Passage]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_files(path, **options))


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS)),
    delimiter=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_every_cell_that_python_writes_comes_back(
    rows: list[tuple[str, str, str]],
    delimiter: str,
    line_end: str,
    quoting: Any,
    encoding: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerows([("text", "one", "two"), *rows])
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    passages = _read(path, written.getvalue().encode(encoding))
    assert [(passage.text, passage.metadata["one"], passage.metadata["two"]) for passage in passages] == [
        (text.strip(), one, two) for text, one, two in rows
    ]


def test_columns_are_named_as_in_jsonl(tmp_path: Path) -> None:
    passages = _read(tmp_path / "table.csv", "id,title,text,year\nx,T,words,2024\ny,,more,\n")
    assert passages == [
        Passage("x", "T words", {"source": "table.csv", "title": "T", "year": "2024"}),
        Passage("y", "more", {"source": "table.csv", "title": "", "year": ""}),
    ]


def test_columns_can_be_named(tmp_path: Path) -> None:
    content = "nr;body;text\n7;words;other\n"
    (passage,) = _read(tmp_path / "table.csv", content, text_column="body", id_column="nr")
    assert passage == Passage("7", "words", {"source": "table.csv", "text": "other"})
    with pytest.raises(InvalidInputError, match=r"table\.csv, line 1: no column 'x'; expected it among nr, body, text"):
        _read(tmp_path / "table.csv", content, text_column="x")


def test_without_a_text_column_all_columns_are_the_text(tmp_path: Path) -> None:
    passages = _read(tmp_path / "table.tsv", "\n\tname\tcity\n\n1\tAda\tLondon\n1\tBob\t\n")
    assert [(passage.id, passage.text) for passage in passages] == [
        ("table.tsv#1", "column_1: 1\nname: Ada\ncity: London"),
        ("table.tsv#2", "column_1: 1\nname: Bob"),
    ]
    assert passages[0].metadata == {"source": "table.tsv", "column_1": "1", "name": "Ada", "city": "London"}


def test_equal_rows_stay_apart(tmp_path: Path) -> None:
    assert len({passage.id for passage in _read(tmp_path / "table.csv", "text\nsame\nsame\n")}) == 2


def test_an_old_encoding_is_named_by_the_user(tmp_path: Path) -> None:
    content = "text\ncafé\n".encode("cp1252")
    with pytest.raises(InvalidInputError, match=r"table\.csv, line 2: not UTF-8"):
        _read(tmp_path / "table.csv", content)
    (passage,) = _read(tmp_path / "table.csv", content, encoding="cp1252")
    assert passage.text == "café"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n\n1,2,3\n", "line 4: the row has length 3; expected 2, as the first row has"),
        ("a,b\n1\n", "line 2: the row has length 1; expected 2"),
        ('a,b\n1,"two\nlines\n', "line 3: not CSV (unexpected end of data)"),
        ('\n\na,b\n1,"x"y\n', "line 4: not CSV"),
        ("a,b,a\n1,2,3\n", "line 1: several columns are called 'a'; expected distinct names"),
        ("id,b\n,2\n", "line 2: nothing in the column 'id'; expected an id"),
        ("x" * 200_000, "line 1: not CSV (field larger than field limit (131072))"),
        (f"a,b\n1,{'x' * 200_000}\n", "line 2: not CSV (field larger than field limit (131072))"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "table.csv"
    with pytest.raises(InvalidInputError) as raised:
        _read(path, content)
    assert str(raised.value).startswith(f"{path}, {message}")


@pytest.mark.parametrize("content", ["", "\n\n", "a,b\n"])
def test_a_table_without_rows_has_no_passages(tmp_path: Path, content: str) -> None:
    assert _read(tmp_path / "table.csv", content) == []
