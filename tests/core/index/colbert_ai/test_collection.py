"""Texts, ids and metadata beside an index in colbert-ai's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from colbert_ai_folders import TEXTS, arrays, change_json, write_folder, write_json

from rerank_integrations import IndexFormatError, InvalidInputError, Passage
from rerank_integrations.core.index.colbert_ai import open_colbert_ai, read_collection

DOCIDS = {"0": "paris", "1": "rome", "2": "rome", "3": "rome#1", "4": "rome"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "index")


def passages(folder: Path, path: Path | None = None) -> list[tuple[int, Passage]]:
    collection = read_collection(open_colbert_ai(folder), path)
    found = list(collection)
    assert list(collection) == found
    assert len(collection) == len(found)
    assert {pid: passage.id for pid, passage in found} == collection.ids
    return found


def remove_passage_3(folder: Path) -> None:
    """Remove a passage as colbert-ai's IndexUpdater does: its tokens go, its number stays."""
    write_json(folder / "doclens.1.json", [0, 5])
    change_json(folder / "1.metadata.json", num_embeddings=5)
    for name in ("1.codes.pt", "1.residuals.pt"):
        torch.save(arrays()[name][1:], folder / name)
    change_json(folder / "metadata.json", num_embeddings=14)


def test_without_ids_the_numbers_are_the_ids(folder: Path) -> None:
    assert passages(folder) == [(pid, Passage(str(pid), text)) for pid, text in enumerate(TEXTS)]


def test_ids_and_metadata_of_ragatouille(folder: Path) -> None:
    write_json(folder / "pid_docid_map.json", DOCIDS)
    metadata = {"paris": {"n": 1}, "rome": {"n": 2}, "rome#1": None, "of another index": {}}
    write_json(folder / "docid_metadata_map.json", metadata)
    rome = {"document_id": "rome", "n": 2}
    assert [passage for _, passage in passages(folder)] == [
        Passage("paris", TEXTS[0], {"n": 1}),
        # "rome#1" is the id of a document, and stays so.
        Passage("rome#1#", TEXTS[1], rome),
        Passage("rome#2", TEXTS[2], rome),
        Passage("rome#1", TEXTS[3]),
        Passage("rome#3", TEXTS[4], rome),
    ]


def test_a_document_id_in_the_metadata_stays(folder: Path) -> None:
    write_json(folder / "pid_docid_map.json", DOCIDS)
    write_json(folder / "docid_metadata_map.json", {"rome": {"document_id": 7}})
    assert passages(folder)[1][1].metadata == {"document_id": 7}


def test_tsv_is_read_as_colbert_ai_reads_it(folder: Path, tmp_path: Path) -> None:
    lines = ["id\theader counts", "1\ttext\ttitle", "2\ttext\ttitle\tmore ", "3\t", "4\tnaïve café \n"]
    (tmp_path / "c.tsv").write_text("\n".join(lines), encoding="utf-8")
    texts = [passage.text for _, passage in passages(folder, tmp_path / "c.tsv")]
    assert texts == ["header counts", "title | text", "title | text", "", "naïve café"]


def test_the_folders_own_tsv_and_a_json_elsewhere(folder: Path, tmp_path: Path) -> None:
    (folder / "collection.json").unlink()
    (folder / "collection.tsv").write_text("".join(f"{pid}\t{text}!\n" for pid, text in enumerate(TEXTS)))
    assert passages(folder)[4][1].text == TEXTS[4] + "!"
    write_json(tmp_path / "c.json", [text + "?" for text in TEXTS])
    assert passages(folder, tmp_path / "c.json")[4][1].text == TEXTS[4] + "?"


def test_removed_passages_are_left_out(folder: Path) -> None:
    remove_passage_3(folder)
    kept = [0, 1, 2, 4]
    assert passages(folder) == [(pid, Passage(str(pid), TEXTS[pid])) for pid in kept]
    # RAGatouille takes them out of its files as well, and does not count anew.
    write_json(folder / "collection.json", [TEXTS[pid] for pid in kept])
    write_json(folder / "pid_docid_map.json", {str(pid): f"d{pid}" for pid in kept})
    assert passages(folder) == [(pid, Passage(f"d{pid}", TEXTS[pid])) for pid in kept]


def test_without_a_collection_the_error_says_what_is_expected(folder: Path, tmp_path: Path) -> None:
    (folder / "collection.json").unlink()
    index = open_colbert_ai(folder)
    with pytest.raises(InvalidInputError, match=r"no collection\.json and no collection\.tsv.*pid<tab>text"):
        read_collection(index)
    with pytest.raises(InvalidInputError, match="does not exist"):
        read_collection(index, tmp_path / "c.tsv")
    with pytest.raises(InvalidInputError, match=r"expected the path of a \.tsv"):
        read_collection(index, tmp_path / "c.jsonl")
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(InvalidInputError, match="does not exist"):
        read_collection(index, tmp_path / "folder.tsv")


TSV_DAMAGE = {
    "a passage too few": (b"0\ta\n1\ta\n2\ta\n3\ta\n", "4 passages; expected 5"),
    "a passage too many": (b"".join(b"%d\ta\n" % pid for pid in range(6)), "6 passages; expected 5"),
    "a pid twice": (b"0\ta\n1\ta\n1\ta\n3\ta\n4\ta\n", "line 3.*expected pid 2"),
    "pids from 1": (b"1\ta\n2\ta\n3\ta\n4\ta\n5\ta\n", "line 1"),
    "a pid that is none": (b"zero\ta\n", "'zero"),
    "a huge pid": (b"9" * 10_000 + b"\ta\n", "line 1"),
    "no tab": (b"0 a\n", "expected pid 0, a tab"),
    "an empty line": (b"0\ta\n\n2\ta\n", "line 2"),
    "not UTF-8": (b"0\t\xff\n", "not UTF-8"),
}


@pytest.mark.parametrize("damage", TSV_DAMAGE)
def test_tsv_that_does_not_fit(folder: Path, tmp_path: Path, damage: str) -> None:
    content, message = TSV_DAMAGE[damage]
    (tmp_path / "c.tsv").write_bytes(content)
    index = open_colbert_ai(folder)
    with pytest.raises(IndexFormatError, match=message) as refused:
        read_collection(index, tmp_path / "c.tsv")
    assert str(tmp_path / "c.tsv") in str(refused.value)


JSON_DAMAGE: dict[str, tuple[str, Any, str]] = {
    "a text too few": ("collection.json", TEXTS[1:], "4 passages; expected 5"),
    "a text that is a number": ("collection.json", [*TEXTS[1:], 3], "a int at place 4"),
    "texts by pid": ("collection.json", {"0": "a"}, "expected a JSON array"),
    "a text that is not Unicode": ("collection.json", [*TEXTS[1:], "\ud800"], "not valid Unicode"),
    "ids as a list": ("pid_docid_map.json", list(DOCIDS.values()), "expected a JSON object"),
    "an id too few": ("pid_docid_map.json", {"0": "a", "1": "b", "3": "d", "4": "e"}, "lacks 1.*2 for one"),
    "an id too many": ("pid_docid_map.json", {**DOCIDS, "5": "a"}, "tells of passage 5; expected 0 to 4"),
    "a pid in words": ("pid_docid_map.json", {**DOCIDS, "five": "a"}, "'five'"),
    "a pid with a zero before it": ("pid_docid_map.json", {**DOCIDS, "04": "a"}, "'04'"),
    "a negative pid": ("pid_docid_map.json", {**DOCIDS, "-1": "a"}, "'-1'"),
    "an empty id": ("pid_docid_map.json", {**DOCIDS, "4": ""}, "passage 4 the document id ''"),
    "an id of another kind": ("pid_docid_map.json", {**DOCIDS, "4": None}, "document id None"),
    "an id with a NUL": ("pid_docid_map.json", {**DOCIDS, "4": "a\0"}, "NUL"),
    "metadata as a list": ("docid_metadata_map.json", [], "expected a JSON object"),
    "metadata that is text": ("docid_metadata_map.json", {"paris": "text"}, "'paris' 'text'"),
    "metadata that is not finite": ("docid_metadata_map.json", {"paris": {"n": float("nan")}}, "'paris' has nan"),
}


@pytest.mark.parametrize("damage", JSON_DAMAGE)
def test_json_that_does_not_fit(folder: Path, damage: str) -> None:
    name, content, message = JSON_DAMAGE[damage]
    write_json(folder / "pid_docid_map.json", DOCIDS)
    write_json(folder / name, content)
    index = open_colbert_ai(folder)
    with pytest.raises(IndexFormatError, match=message) as refused:
        read_collection(index)
    assert str(folder) in str(refused.value)


def test_a_pid_twice(folder: Path) -> None:
    (folder / "pid_docid_map.json").write_text('{"0": "a", "1": "b", "2": "c", "3": "d", "3": "e", "4": "f"}')
    with pytest.raises(IndexFormatError, match=r"pid_docid_map\.json.*'3' stands twice"):
        read_collection(open_colbert_ai(folder))


def test_metadata_without_ids(folder: Path) -> None:
    write_json(folder / "docid_metadata_map.json", {})
    with pytest.raises(IndexFormatError, match=r"no pid_docid_map\.json"):
        read_collection(open_colbert_ai(folder))
