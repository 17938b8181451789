"""``rerank-integrations index``."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rerank_integrations import ColBERTIndex, ColBERTModel

Cli = Callable[..., Any]


def _stored(path: Path, *ids: str) -> dict[str, tuple[str, dict[str, object]]]:
    with ColBERTIndex.open(path, read_only=True) as index:
        assert len(index) == len(ids)
        return {passage.id: (passage.text, dict(passage.metadata)) for passage in index.get(ids)}


def test_jsonl_is_stored_with_its_metadata(made: Path) -> None:
    stored = _stored(made, "a", "b", "c")
    assert stored["a"] == (
        "Net profit The net profit grew in 2024.",
        {"source": "corpus.jsonl", "title": "Net profit", "year": 2024},
    )
    assert stored["b"][1]["year"] == 2023


def test_an_existing_index_is_added_to(cli: Cli, made: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl.gz"
    with gzip.open(more, "wt", encoding="utf-8") as stream:
        stream.write('{"_id": "a", "text": "replaced"}\n{"_id": "d", "text": "new"}\n')
    done = cli("index", made, more, "--json")
    assert done.code == 0, done.err
    assert done.json() == {
        "index": str(made),
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
    stored = _stored(made, "a", "b", "c", "d")
    assert stored["a"] == ("replaced", {"source": "more.jsonl.gz"})


def test_overwrite_replaces_the_index(cli: Cli, made: Path, tmp_path: Path, colbert_dir: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("one\n\ntwo", "utf-8")
    done = cli("index", made, notes, "--model", colbert_dir, "--overwrite")
    assert done.code == 0, done.err
    assert _stored(made, "notes.txt#1") == {"notes.txt#1": ("one\n\ntwo", {"source": "notes.txt"})}


def test_a_folder_is_read_recursively(cli: Cli, tmp_path: Path, colbert_dir: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "deep" / "guide.md").write_text("# Install\n\nRun it.\n\n# Use\n\nCall it.", "utf-8")
    (docs / "notes.txt").write_text("A note.", "utf-8")
    (docs / "records.jsonl").write_text('{"_id": "r", "text": "A record."}', "utf-8")
    done = cli("index", tmp_path / "made", docs, "--model", colbert_dir)
    assert done.code == 0, done.err
    assert "4 passages read from 3 files" in done.out
    _stored(tmp_path / "made", "docs/deep/guide.md#1", "docs/deep/guide.md#2", "docs/notes.txt#1", "r")


def test_a_file_that_became_shorter_leaves_nothing_stale(cli: Cli, tmp_path: Path, colbert_dir: Path) -> None:
    guide, made = tmp_path / "guide.md", tmp_path / "made"
    guide.write_text("# One\n\ntext\n\n# Two\n\ntext\n\n# Three\n\ntext", "utf-8")
    assert cli("index", made, guide, "--model", colbert_dir).code == 0
    guide.write_text("# One\n\nother text", "utf-8")
    done = cli("index", made, guide, "--json")
    assert done.json()["removed"] == 2
    assert _stored(made, "guide.md#1")["guide.md#1"][0] == "# One\n\nother text"


def test_overwrite_keeps_the_model(cli: Cli, made: Path, corpus: Path, colbert_dir: Path) -> None:
    assert cli("index", made, corpus, "--overwrite").code == 0
    assert cli("info", made, "--json").json()["model"] == str(colbert_dir)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_bad_line_is_named_and_changes_nothing(
    cli: Cli, made: Path, tmp_path: Path, colbert_dir: Path, overwrite: bool
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"_id": "good", "text": "good"}\n{"_id": "bad"}\n', "utf-8")
    options = ["--model", colbert_dir, "--overwrite"] if overwrite else []
    done = cli("index", made, bad, *options)
    assert done.code == 1
    assert done.out == ""
    assert done.err.strip() == f"error: {bad}, line 2: 'text' is None; expected a string"
    _stored(made, "a", "b", "c")


def test_the_model_of_an_existing_index_must_be_its_own(
    cli: Cli, made: Path, corpus: Path, tmp_path: Path, stanford_dir: Path
) -> None:
    done = cli("index", made, corpus, "--model", stanford_dir)
    assert done.code == 1
    assert done.err.startswith("error: ")
    _stored(made, "a", "b", "c")


def test_an_index_in_use_is_refused(cli: Cli, made: Path, corpus: Path, colbert: ColBERTModel) -> None:
    with ColBERTIndex.open(made):
        done = cli("index", made, corpus)
    assert done.code == 1
    assert "error: " in done.err
    _stored(made, "a", "b", "c")


def test_a_source_that_is_not_there_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    done = cli("index", tmp_path / "made", tmp_path / "nothing.jsonl")
    assert done.code == 2
    assert "nothing.jsonl" in done.err
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_that_is_not_there_is_one_line(cli: Cli, tmp_path: Path, corpus: Path) -> None:
    done = cli("index", tmp_path / "made", corpus, "--model", tmp_path / "no-checkpoint")
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "no-checkpoint" in line
    assert "Traceback" not in done.err


def test_records_survive_json_and_unicode(cli: Cli, tmp_path: Path, colbert_dir: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"_id": "é/1", "text": "naïve café", "tags": ["x", None]}), "utf-8")
    assert cli("index", tmp_path / "made", path, "--model", colbert_dir).code == 0
    assert _stored(tmp_path / "made", "é/1")["é/1"] == (
        "naïve café",
        {"source": "corpus.jsonl", "tags": ["x", None]},
    )


@pytest.fixture
def notes(cli: Cli, tmp_path: Path, colbert_dir: Path) -> tuple[Path, Path]:
    """A folder of two files and a JSONL file, and an index of it."""
    folder, made = tmp_path / "notes", tmp_path / "made"
    folder.mkdir()
    (folder / "old.txt").write_text("The password is swordfish.", "utf-8")
    (folder / "new.txt").write_text("Lunch is at noon.", "utf-8")
    (folder / "records.jsonl").write_text('{"_id": "r1", "text": "One."}\n{"_id": "r2", "text": "Two."}\n', "utf-8")
    assert cli("index", made, folder, "--model", colbert_dir).code == 0
    return folder, made


def _changes(document: dict[str, Any]) -> tuple[int, ...]:
    return tuple(document[key] for key in ("added", "replaced", "unchanged", "removed"))


def test_indexed_again_a_folder_loses_what_is_gone(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, made = notes
    (folder / "old.txt").unlink()
    (folder / "new.txt").write_text("Lunch is at one.", "utf-8")
    (folder / "more.md").write_text("# More", "utf-8")
    (folder / "records.jsonl").write_text('{"_id": "r1", "text": "One."}\n', "utf-8")
    done = cli("index", made, folder, "--json")
    assert done.code == 0, done.err
    assert _changes(done.json()) == (1, 1, 1, 2)
    assert _stored(made, "notes/new.txt#1", "notes/more.md#1", "r1")["notes/new.txt#1"][0] == "Lunch is at one."
    told = cli("index", made, folder).out
    assert "3 passages read from 3 files, 0 added, 0 replaced, 3 unchanged, 0 removed" in " ".join(told.split())


def test_a_folder_that_has_become_empty_is_emptied(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, made = notes
    for file in folder.iterdir():
        file.unlink()
    assert _changes(cli("index", made, folder, "--json").json()) == (0, 0, 0, 4)
    _stored(made)


def test_passages_that_came_otherwise_stay(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, made = notes
    source = {"source": "notes/old.txt"}
    with ColBERTIndex.open(made) as index:
        index.upsert([{"id": "notes/old.txt#2", "text": "By hand.", "metadata": source}])
        index.upsert([{"id": "r2", "text": "Replaced by hand.", "metadata": {"source": "notes/records.jsonl"}}])
    (folder / "old.txt").unlink()
    (folder / "records.jsonl").write_text('{"_id": "r1", "text": "One."}\n', "utf-8")
    assert _changes(cli("index", made, folder, "--json").json()) == (0, 0, 2, 1)
    _stored(made, "notes/new.txt#1", "notes/old.txt#2", "r1", "r2")


def test_folders_of_one_name_are_told_apart(cli: Cli, notes: tuple[Path, Path], tmp_path: Path) -> None:
    folder, made = notes
    other = tmp_path / "elsewhere" / "notes"
    other.mkdir(parents=True)
    (other / "third.txt").write_text("Elsewhere.", "utf-8")
    (other / "records.jsonl").write_bytes((folder / "records.jsonl").read_bytes())
    assert _changes(cli("index", made, other, "--json").json()) == (1, 0, 2, 0)
    for file in other.iterdir():
        file.unlink()
    # The records are those of the other folder, too.
    assert _changes(cli("index", made, other, "--json").json()) == (0, 0, 0, 1)
    _stored(made, "notes/old.txt#1", "notes/new.txt#1", "r1", "r2")


def test_a_run_that_is_stopped_is_made_good_by_the_next(
    cli: Cli, notes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = notes
    (folder / "old.txt").unlink()
    (folder / "later.txt").write_text("Later.", "utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(ColBERTIndex, "delete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cli("index", made, folder)
    (folder / "later.txt").unlink()
    assert _changes(cli("index", made, folder, "--json").json()) == (0, 0, 3, 2)
    _stored(made, "notes/new.txt#1", "r1", "r2")


def test_a_file_that_cannot_be_read_does_not_refuse_the_rest(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, made = notes
    (folder / "old.txt").write_bytes(b"caf\xe9")
    (folder / "new.txt").write_text("Lunch is at one.", "utf-8")
    (folder / "bad.jsonl").write_text('{"_id": "x", "text": "fine"}\n{"_id": "half", "text": "\\ud800"}\n', "utf-8")
    done = cli("index", made, folder)
    assert done.code == 3
    assert "3 passages read from 2 files, 0 added, 1 replaced, 2 unchanged, 0 removed" in " ".join(done.out.split())
    first, second = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert first.startswith(f"error: {folder / 'bad.jsonl'}: text of passage 'half' is not valid Unicode")
    assert second == f"error: {folder / 'old.txt'}, line 1: not UTF-8 (unexpected end of data); expected UTF-8"
    # What it held before stays.
    assert "notes/old.txt#1" in _stored(made, "notes/old.txt#1", "notes/new.txt#1", "r1", "r2")
    document = cli("index", made, folder, "--json").json()
    assert (document["files"], len(document["unreadable"])) == (2, 2)


def test_kinds_of_file_that_are_left_out_are_listed(cli: Cli, notes: tuple[Path, Path]) -> None:
    folder, made = notes
    (folder / ".git").mkdir()
    for name in ("a.PDF", "deep.pdf", "page.html", "Makefile", ".git/config"):
        (folder / name).write_text("x", "utf-8")
    done = cli("index", made, folder)
    assert done.code == 0
    assert "files left out: 2 .pdf, " in done.err
    left_out = cli("index", made, folder, "--json").json()["left_out"]
    assert left_out == {".pdf": 2, ".html": 1, "without a suffix": 1, "hidden": 1}
    # An index within the folder is none of its files.
    assert cli("index", made, folder.parent, "--json").json()["left_out"] == left_out


@pytest.mark.parametrize("record", ["{", "[]", '{"version": 2}', '{"version": 1, "sources": {"a": {"b": {"c": 1}}}}'])
def test_a_damaged_record_of_sources_is_named(cli: Cli, notes: tuple[Path, Path], record: str) -> None:
    folder, made = notes
    (made / "sources.json").write_text(record, "utf-8")
    done = cli("index", made, folder)
    assert done.code == 1
    assert f"error: {made / 'sources.json'} does not say what was indexed" in done.err
    assert cli("index", made, folder, "--overwrite").code == 0
