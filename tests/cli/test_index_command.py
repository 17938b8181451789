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
    assert done.json() == {"index": str(made), "files": 1, "read": 2, "removed": 0, "passages": 4}
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
