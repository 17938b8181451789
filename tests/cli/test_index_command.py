"""``rerank-integrations index``."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docx
import pytest
from command_line import Cli
from fpdf import FPDF

from rerank_integrations import ColBERTIndex, ColBERTModel, Passage
from rerank_integrations.files.reading import read_passages
from rerank_integrations.files.sources import SourceFile


def _stored(path: Path, *ids: str) -> dict[str, tuple[str, dict[str, object]]]:
    with ColBERTIndex.open(path, read_only=True) as index:
        assert len(index) == len(ids)
        return {passage.id: (passage.text, dict(passage.metadata)) for passage in index.get(ids)}


def test_jsonl_is_stored_with_its_metadata(index_path: Path) -> None:
    stored = _stored(index_path, "a", "b", "c")
    assert stored["a"] == (
        "Net profit The net profit grew in 2024.",
        {"source": "corpus.jsonl", "title": "Net profit", "year": 2024},
    )
    assert stored["b"][1]["year"] == 2023


def test_an_existing_index_is_added_to(cli: Cli, index_path: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl.gz"
    with gzip.open(more, "wt", encoding="utf-8") as stream:
        stream.write('{"_id": "a", "text": "replaced"}\n{"_id": "d", "text": "new"}\n')
    done = cli("index", index_path, more, "--json")
    assert done.code == 0, done.err
    assert done.json() == {
        "index": str(index_path),
        "files": 1,
        "read": 2,
        "added": 1,
        "replaced": 1,
        "unchanged": 0,
        "removed": 0,
        "passages": 4,
        "left_out": {},
        "unreadable": [],
    }
    stored = _stored(index_path, "a", "b", "c", "d")
    assert stored["a"] == ("replaced", {"source": "more.jsonl.gz"})


def test_overwrite_replaces_the_index(cli: Cli, index_path: Path, tmp_path: Path, colbert_dir: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("one\n\ntwo", "utf-8")
    done = cli("index", index_path, notes, "--model", colbert_dir, "--overwrite")
    assert done.code == 0, done.err
    assert _stored(index_path, "notes.txt#1") == {
        "notes.txt#1": ("one\n\ntwo", {"source": "notes.txt", "start": 0, "end": 8})
    }


def test_tokens_are_pooled(cli: Cli, tmp_path: Path, colbert_dir: Path) -> None:
    notes, path = tmp_path / "notes.txt", tmp_path / "pooled"
    notes.write_text("The net profit grew in 2024.", "utf-8")
    for given in (["--pool-factor", "2"], []):
        done = cli("index", path, notes, "--model", colbert_dir, *given)
        assert done.code == 0, done.err
        assert cli("info", path, "--json").json()["pool_factor"] == 2.0
    refused = cli("index", path, notes, "--model", colbert_dir, "--pool-factor", "3")
    assert refused.code == 1 and "pool_factor is 3.0" in refused.err
    refused = cli("index", tmp_path / "none", notes, "--model", colbert_dir, "--pool-factor", "0")
    assert refused.code == 1 and "expected a number from 1 to 100" in refused.err
    explained = cli("explain", "profit", "--index", path, "--id", "notes.txt#1", "--model", colbert_dir)
    assert "pools token vectors by 2" in explained.out


def test_a_folder_is_read_recursively(cli: Cli, tmp_path: Path, colbert_dir: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "deep" / "guide.md").write_text("# Install\n\nRun it.\n\n# Use\n\nCall it.", "utf-8")
    (docs / "notes.txt").write_text("A note.", "utf-8")
    (docs / "records.jsonl").write_text('{"_id": "r", "text": "A record."}', "utf-8")
    done = cli("index", tmp_path / "made", docs, "--model", colbert_dir)
    assert done.code == 0, done.err
    assert "3 passages read from 3 files" in done.out
    _stored(tmp_path / "made", "docs/deep/guide.md#1", "docs/notes.txt#1", "r")


def test_a_file_that_became_shorter_leaves_nothing_stale(cli: Cli, tmp_path: Path, cached_model: str) -> None:
    guide, index_path = tmp_path / "guide.md", tmp_path / "made"
    guide.write_text("\n\n".join(f"# Part {number}\n\n{'text ' * 10}" for number in range(3)), "utf-8")
    assert cli("index", index_path, guide, "--model", cached_model, "--chunk-tokens", 20).code == 0
    guide.write_text("# One\n\nother text", "utf-8")
    done = cli("index", index_path, guide, "--json")
    assert done.json()["removed"] == 2
    assert _stored(index_path, "guide.md#1")["guide.md#1"][0] == "# One\n\nother text"


def test_overwrite_keeps_the_model(cli: Cli, index_path: Path, corpus: Path, cached_model: str) -> None:
    assert cli("index", index_path, corpus, "--overwrite").code == 0
    assert cli("info", index_path, "--json").json()["model"] == cached_model


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_bad_line_is_named_and_changes_nothing(
    cli: Cli, index_path: Path, tmp_path: Path, colbert_dir: Path, overwrite: bool
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"_id": "good", "text": "good"}\n{"_id": "bad"}\n', "utf-8")
    options = ["--model", colbert_dir, "--overwrite"] if overwrite else []
    done = cli("index", index_path, bad, *options)
    assert done.code == 1
    assert done.out == ""
    assert done.err.strip() == f"error: {bad}, line 2: 'text' is None; expected a string"
    _stored(index_path, "a", "b", "c")


def test_the_model_of_an_existing_index_must_be_its_own(
    cli: Cli, index_path: Path, corpus: Path, tmp_path: Path, stanford_dir: Path
) -> None:
    done = cli("index", index_path, corpus, "--model", stanford_dir)
    assert done.code == 1
    assert done.err.startswith("error: ")
    _stored(index_path, "a", "b", "c")


def test_an_index_in_use_is_refused(cli: Cli, index_path: Path, corpus: Path, colbert: ColBERTModel) -> None:
    with ColBERTIndex.open(index_path):
        done = cli("index", index_path, corpus)
    assert done.code == 1
    assert "error: " in done.err
    _stored(index_path, "a", "b", "c")


def test_a_missing_source_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    done = cli("index", tmp_path / "made", tmp_path / "nothing.jsonl")
    assert done.code == 2
    assert "nothing.jsonl" in done.err
    assert not (tmp_path / "made").exists()


def test_a_missing_checkpoint_is_one_line(cli: Cli, tmp_path: Path, corpus: Path) -> None:
    done = cli("index", tmp_path / "made", corpus, "--model", tmp_path / "no-checkpoint")
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "no-checkpoint" in line
    assert "Traceback" not in done.err


def test_records_survive_json_and_unicode(cli: Cli, tmp_path: Path, cached_model: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"_id": "é/1", "text": "naïve café", "tags": ["x", None]}), "utf-8")
    assert cli("index", tmp_path / "made", path, "--model", cached_model).code == 0
    assert _stored(tmp_path / "made", "é/1")["é/1"] == (
        "naïve café",
        {"source": "corpus.jsonl", "tags": ["x", None]},
    )


@pytest.fixture
def notes(cli: Cli, tmp_path: Path, cached_model: str) -> tuple[Path, Path]:
    """Return a folder of two text files and a JSONL file, and an index of it."""
    folder, index_path = tmp_path / "notes", tmp_path / "made"
    folder.mkdir()
    (folder / "old.txt").write_text("The password is swordfish.", "utf-8")
    (folder / "new.txt").write_text("Lunch is at noon.", "utf-8")
    (folder / "records.jsonl").write_text('{"_id": "r1", "text": "One."}\n{"_id": "r2", "text": "Two."}\n', "utf-8")
    assert cli("index", index_path, folder, "--model", cached_model).code == 0
    return folder, index_path


def _changes(document: dict[str, Any]) -> tuple[int, ...]:
    return tuple(document[key] for key in ("added", "replaced", "unchanged", "removed"))


def test_indexing_a_folder_again_removes_passages_of_deleted_files(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, index_path = notes
    (folder / "old.txt").unlink()
    (folder / "new.txt").write_text("Lunch is at one.", "utf-8")
    (folder / "more.md").write_text("# More", "utf-8")
    (folder / "records.jsonl").write_text('{"_id": "r1", "text": "One."}\n', "utf-8")
    done = cli("index", index_path, folder, "--json")
    assert done.code == 0, done.err
    assert _changes(done.json()) == (1, 1, 1, 2)
    assert _stored(index_path, "notes/new.txt#1", "notes/more.md#1", "r1")["notes/new.txt#1"][0] == "Lunch is at one."
    message = cli("index", index_path, folder).out
    assert "3 passages read from 3 files, 0 added, 0 replaced, 3 unchanged, 0 removed" in " ".join(message.split())


def test_indexing_an_emptied_folder_removes_its_passages(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, index_path = notes
    for file in folder.iterdir():
        file.unlink()
    assert _changes(cli("index", index_path, folder, "--json").json()) == (0, 0, 0, 4)
    _stored(index_path)


def test_passages_stored_in_another_way_stay(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, index_path = notes
    source = {"source": "notes/old.txt"}
    with ColBERTIndex.open(index_path) as index:
        index.upsert([{"id": "notes/old.txt#2", "text": "By hand.", "metadata": source}])
        index.upsert([{"id": "r2", "text": "Replaced by hand.", "metadata": {"source": "notes/records.jsonl"}}])
    (folder / "old.txt").unlink()
    (folder / "records.jsonl").write_text('{"_id": "r1", "text": "One."}\n', "utf-8")
    assert _changes(cli("index", index_path, folder, "--json").json()) == (0, 0, 2, 1)
    _stored(index_path, "notes/new.txt#1", "notes/old.txt#2", "r1", "r2")


def test_folders_of_the_same_name_are_distinguished(cli: Cli, notes: tuple[Path, Path], tmp_path: Path) -> None:
    folder, index_path = notes
    other = tmp_path / "elsewhere" / "notes"
    other.mkdir(parents=True)
    (other / "third.txt").write_text("Elsewhere.", "utf-8")
    (other / "records.jsonl").write_bytes((folder / "records.jsonl").read_bytes())
    assert _changes(cli("index", index_path, other, "--json").json()) == (1, 0, 2, 0)
    for file in other.iterdir():
        file.unlink()
    # The other folder contains the same records.
    assert _changes(cli("index", index_path, other, "--json").json()) == (0, 0, 0, 1)
    _stored(index_path, "notes/old.txt#1", "notes/new.txt#1", "r1", "r2")


def test_a_file_of_another_folder_of_the_same_name_replaces_nothing(
    cli: Cli, notes: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, index_path = notes
    other = tmp_path / "elsewhere" / "notes"
    other.mkdir(parents=True)
    (other / "old.txt").write_text("Elsewhere.", "utf-8")
    refused = cli("index", index_path, other)
    assert refused.code == 1
    assert "would share the ids notes/old.txt#1" in " ".join(refused.err.split())
    ids = ("notes/old.txt#1", "notes/new.txt#1", "r1", "r2")
    assert _stored(index_path, *ids)["notes/old.txt#1"][0] == "The password is swordfish."
    # A folder that was moved keeps its passages.
    folder.rename(tmp_path / "elsewhere" / "moved")
    assert _changes(cli("index", index_path, other, "--json").json()) == (0, 1, 0, 0)
    assert _stored(index_path, *ids)["notes/old.txt#1"][0] == "Elsewhere."


def test_the_next_run_completes_a_stopped_run(
    cli: Cli, notes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index_path = notes
    (folder / "old.txt").unlink()
    (folder / "later.txt").write_text("Later.", "utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(ColBERTIndex, "delete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cli("index", index_path, folder)
    (folder / "later.txt").unlink()
    assert _changes(cli("index", index_path, folder, "--json").json()) == (0, 0, 3, 2)
    _stored(index_path, "notes/new.txt#1", "r1", "r2")


def test_the_other_files_are_indexed_when_a_file_is_unreadable(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, index_path = notes
    (folder / "old.txt").write_bytes(b"caf\xe9")
    (folder / "new.txt").write_text("Lunch is at one.", "utf-8")
    (folder / "bad.jsonl").write_text('{"_id": "x", "text": "fine"}\n{"_id": "half", "text": "\\ud800"}\n', "utf-8")
    done = cli("index", index_path, folder)
    assert done.code == 3
    assert "3 passages read from 2 files, 0 added, 1 replaced, 2 unchanged, 0 removed" in " ".join(done.out.split())
    first, second = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert first.startswith(f"error: {folder / 'bad.jsonl'}: text of passage 'half' is not valid Unicode")
    option = "its encoding as the option encoding"
    assert (
        second
        == f"error: {folder / 'old.txt'}, line 1: not UTF-8 (unexpected end of data); expected UTF-8, or {option}"
    )
    # The passages of an unreadable file stay.
    assert "notes/old.txt#1" in _stored(index_path, "notes/old.txt#1", "notes/new.txt#1", "r1", "r2")
    document = cli("index", index_path, folder, "--json").json()
    assert (document["files"], len(document["unreadable"])) == (2, 2)


def test_ignored_kinds_of_files_are_listed(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, index_path = notes
    (folder / ".git").mkdir()
    for name in ("a.RST", "deep.rst", "table.xlsx", "Makefile", ".git/config"):
        (folder / name).write_text("x", "utf-8")
    done = cli("index", index_path, folder)
    assert done.code == 0
    assert "files left out: 2 .rst, " in done.err
    left_out = cli("index", index_path, folder, "--json").json()["left_out"]
    assert left_out == {".rst": 2, ".xlsx": 1, "without a suffix": 1, "hidden": 1}
    # The files of an index within the folder are not counted.
    assert cli("index", index_path, folder.parent, "--json").json()["left_out"] == left_out


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        '{"version": 2}',
        '{"version": 3, "sources": {}}',
        '{"version": 1, "sources": {"a": {"b": {"c": 1}}}}',
        '{"version": 2, "sources": {"a": {"options": {"chunk_tokens": "x"}, "files": {}}}}',
        '{"version": 2, "sources": {"a": {"options": {}, "files": {"b": {"digests": {"c": 1}, "fingerprint": ""}}}}}',
    ],
)
def test_a_damaged_record_of_sources_is_named(cli: Cli, notes: tuple[Path, Path], record: str) -> None:
    folder, index_path = notes
    (index_path / "sources.json").write_text(record, "utf-8")
    done = cli("index", index_path, folder)
    assert done.code == 1
    assert f"error: {index_path / 'sources.json'} does not say what was indexed" in done.err
    assert cli("index", index_path, folder, "--overwrite").code == 0


def test_a_record_of_the_first_version_is_read(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, index_path = notes
    file = index_path / "sources.json"
    record = json.loads(file.read_text("utf-8"))
    files = {name: value["digests"] for name, value in record["sources"][str(folder)]["files"].items()}
    file.write_text(json.dumps({"version": 1, "sources": {str(folder): files}}), "utf-8")
    (folder / "old.txt").unlink()
    assert _changes(cli("index", index_path, folder, "--json").json()) == (0, 0, 3, 1)


# --- other formats, chunks and their options ---


def _reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every file that is read from now on is added."""
    names: list[str] = []

    def read_and_note(file: SourceFile, *rest: Any) -> Iterator[Passage]:
        names.append(file.name)
        return read_passages(file, *rest)

    monkeypatch.setattr("rerank_integrations.cli.index.read_passages", read_and_note)
    return names


def test_unchanged_files_are_not_read_again(
    cli: Cli, notes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index_path = notes
    names = _reads(monkeypatch)
    assert _changes(cli("index", index_path, folder, "--json").json()) == (0, 0, 4, 0)
    assert names == []
    (folder / "new.txt").write_text("Lunch is at one.", "utf-8")
    assert _changes(cli("index", index_path, folder, "--json").json()) == (0, 1, 3, 0)
    assert names == ["notes/new.txt"]
    # A passage that the index has no more as it was is stored again.
    with ColBERTIndex.open(index_path) as index:
        index.delete(["notes/old.txt#1"])
        index.upsert([{"id": "r1", "text": "By hand."}])
    assert _changes(cli("index", index_path, folder, "--json").json()) == (1, 1, 2, 0)
    assert names == ["notes/new.txt", "notes/old.txt", "notes/records.jsonl"]


def test_other_options_replace_and_stay(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, index_path = notes
    (folder / "new.txt").write_text("Lunch is at one, and nobody is late. " * 8, "utf-8")
    assert _changes(cli("index", index_path, folder, "--chunk-tokens", 40, "--json").json())[3] == 0
    with ColBERTIndex.open(index_path, read_only=True) as index:
        wide = index.count({"source": "notes/new.txt"})
        model = index.model
    options = ["--chunk-tokens", 16, "--chunk-overlap", 0]
    changes = _changes(cli("index", index_path, folder, *options, "--json").json())
    with ColBERTIndex.open(index_path, read_only=True) as index:
        stored = list(index.get(where={"source": "notes/new.txt"}))
    assert len(stored) > wide > 1
    assert changes[1] > 0
    assert isinstance(model, ColBERTModel)
    assert max(model.token_counts([passage.text for passage in stored])) <= 16
    assert sum(passage.metadata["end"] - passage.metadata["start"] for passage in stored) <= 37 * 8
    # What is not given stays as it was, for this folder alone.
    assert _changes(cli("index", index_path, folder, "--json").json()) == (0, 0, len(stored) + 3, 0)
    record = json.loads((index_path / "sources.json").read_text("utf-8"))
    assert record["sources"][str(folder)]["options"] == {"chunk_tokens": 16, "chunk_overlap": 0}
    assert cli("index", index_path, folder, *options, "--overwrite").code == 0
    assert cli("index", index_path, folder, "--overwrite").code == 0
    record = json.loads((index_path / "sources.json").read_text("utf-8"))
    assert record["sources"][str(folder)]["options"] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk-tokens", 3], "chunk_tokens is 3; expected a whole number of at least 16"),
        (["--chunk-tokens", 10_000], "chunk_tokens is 10000; expected at most"),
        (["--chunk-tokens", 16, "--chunk-overlap", 16], "chunk_overlap is 16; expected at most half of a chunk"),
        (["--encoding", "x"], "encoding is 'x'; expected a name such as"),
    ],
)
def test_options_that_cannot_be_meant_change_nothing(
    cli: Cli, notes: tuple[Path, Path], options: list[object], message: str
) -> None:
    folder, index_path = notes
    (folder / "new.txt").unlink()
    done = cli("index", index_path, folder, *options)
    assert done.code == 1
    assert done.err.startswith(f"error: {message}")
    _stored(index_path, "notes/new.txt#1", "notes/old.txt#1", "r1", "r2")


def test_a_folder_of_every_format(cli: Cli, tmp_path: Path, cached_model: str) -> None:
    folder, index_path = tmp_path / "all", tmp_path / "made"
    folder.mkdir()
    pdf = FPDF()
    pdf.set_font("helvetica", size=12)
    for text in ("The river rose.", "The river fell."):
        pdf.add_page()
        pdf.cell(text=text)
    pdf.output(str(folder / "a.pdf"))
    document = docx.Document()
    document.add_paragraph("The letter came.")
    document.save(str(folder / "b.docx"))
    (folder / "c.html").write_text("<title>Page</title><p>The page.</p>", "utf-8")
    (folder / "d.csv").write_bytes("Stadt;Land\nK\u00f6ln;DE\n".encode("cp1252"))
    (folder / "e.pdf").write_bytes(b"%PDF-1.7 broken")
    done = cli("index", index_path, folder, "--model", cached_model, "--encoding", "cp1252", "--json")
    assert done.code == 3, done.err
    assert done.err.splitlines()[-1].startswith(f"error: {folder / 'e.pdf'}: cannot be read as PDF (")
    document_counts = done.json()
    assert (document_counts["files"], document_counts["added"], len(document_counts["unreadable"])) == (4, 4, 1)
    stored = _stored(index_path, *(f"all/{name}#1" for name in ("a.pdf", "b.docx", "c.html", "d.csv")))
    assert stored["all/a.pdf#1"][0].split("\n\n") == ["The river rose.", "The river fell."]
    assert stored["all/a.pdf#1"][1] == {"source": "all/a.pdf", "page": 1, "start": 0, "end": 32}
    assert stored["all/b.docx#1"][0] == "The letter came."
    assert stored["all/c.html#1"][1]["title"] == "Page"
    assert stored["all/d.csv#1"] == (
        "Stadt: K\u00f6ln\nLand: DE",
        {"source": "all/d.csv", "Stadt": "K\u00f6ln", "Land": "DE"},
    )


def test_a_file_whose_reader_is_missing_is_named(
    cli: Cli, notes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index_path = notes
    (folder / "page.html").write_text("<p>The page.</p>", "utf-8")
    (folder / "old.txt").unlink()
    monkeypatch.delitem(sys.modules, "rerank_integrations.files.formats", raising=False)
    monkeypatch.delattr("rerank_integrations.files.formats", raising=False)
    monkeypatch.setitem(sys.modules, "mammoth", None)
    done = cli("index", index_path, folder)
    assert done.code == 3
    advice = "reading HTML needs an extra: pip install 'rerank-integrations[files]'"
    assert done.err.strip().splitlines()[-1] == f"error: {folder / 'page.html'}: {advice}"
    _stored(index_path, "notes/new.txt#1", "r1", "r2")
