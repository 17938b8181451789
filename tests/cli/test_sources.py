"""Passages from files."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_integrations import InvalidInputError
from rerank_integrations.cli.sources import MAX_WORDS, SourceFile, find_files, read_passages

LINES = st.lists(st.one_of(st.just(""), st.just("# A heading"), st.text("ab .!", max_size=40), st.just("word " * 200)))


def _texts(path: Path, kind: str = "text") -> list[str]:
    return [passage.text for passage in read_passages(SourceFile(path, path.name, kind))]


@given(lines=LINES, kind=st.sampled_from(["text", "markdown"]))
def test_no_word_is_lost_and_no_passage_is_too_long(
    lines: list[str], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("texts") / "file"
    path.write_text("\n".join(lines), "utf-8")
    texts = _texts(path, kind)
    assert " ".join(texts).split() == "\n".join(lines).split()
    assert all(0 < len(text.split()) <= MAX_WORDS for text in texts)


def test_paragraphs_are_joined_as_far_as_they_fit(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("\n\n".join([f"{word} " * 60 for word in ("one", "two", "three")]), "utf-8")
    texts = _texts(path)
    assert [sorted(set(text.split())) for text in texts] == [["one", "two"], ["three"]]


def test_a_long_paragraph_is_cut_after_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(("word " * 99 + "end. ") + "more " * 100, "utf-8")
    assert _texts(path)[0].endswith("end.")


def test_a_heading_stays_with_the_text_after_it(tmp_path: Path) -> None:
    path = tmp_path / "guide.md"
    path.write_text("# Guide\n\n## Install\nRun it.\n\n## Use\n\nCall it.\n", "utf-8")
    assert _texts(path, "markdown") == ["# Guide\n\n## Install\n\nRun it.", "## Use\n\nCall it."]


def test_ids_and_source_contain_the_path_within_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.md").write_text("# A\n\ntext\n\n# B\n\ntext", "utf-8")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "b.md").write_text("no", "utf-8")
    (folder / "picture.png").write_bytes(b"\x00")
    (file,) = find_files([folder])
    passages = list(read_passages(file))
    assert [passage.id for passage in passages] == ["docs/deep/a.md#1", "docs/deep/a.md#2"]
    assert passages[0].metadata == {"source": "docs/deep/a.md"}


def test_beir_record(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    records = [
        {"_id": "x", "title": "T", "text": "text", "metadata": {"url": "u"}, "year": 2024},
        {"id": 7, "text": "by number"},
        {"text": "without id", "source": "its own"},
    ]
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.write("\n\n".join(json.dumps(record) for record in records))
    (file,) = find_files([path])
    first, second, third = read_passages(file)
    assert (first.id, first.text) == ("x", "T text")
    assert first.metadata == {"source": "corpus.jsonl.gz", "title": "T", "url": "u", "year": 2024}
    assert second.id == "7"
    assert third.metadata == {"source": "its own"}
    assert len(third.id) == 32


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "not JSON"),
        ("[1]", "list"),
        ('{"_id": "x"}', "'text'"),
        ('{"text": 3}', "'text' is 3"),
        ('{"text": "t", "title": 3}', "'title' is 3"),
        ('{"text": "t", "metadata": 3}', "'metadata' is 3"),
        ('{"_id": "", "text": "t"}', "id"),
        ('{"_id": true, "text": "t"}', "True"),
        ('{"_id": ["x"], "text": "t"}', "id"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "good"}\n\n' + line + "\n", "utf-8")
    with pytest.raises(InvalidInputError) as raised:
        _texts(path, "jsonl")
    assert str(raised.value).startswith(f"{path}, line 3: ")
    assert message in str(raised.value)


def test_other_encodings_and_damaged_gzip_are_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(InvalidInputError, match=r"latin\.txt, line 1: not UTF-8"):
        _texts(latin)
    cut = tmp_path / "cut.txt.gz"
    cut.write_bytes(gzip.compress(b"some words " * 1000)[:40])
    with pytest.raises(InvalidInputError, match=r"cut\.txt\.gz, line 1: damaged gzip"):
        _texts(cut)


def test_files_that_cannot_be_indexed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="nothing to index"):
        find_files([tmp_path / "empty"])
    (tmp_path / "table.csv").write_text("a,b", "utf-8")
    with pytest.raises(InvalidInputError, match=r"table\.csv is of an unknown kind"):
        find_files([tmp_path / "table.csv"])


def test_two_files_with_the_same_name_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "readme.md").write_text("text", "utf-8")
    with pytest.raises(InvalidInputError, match=r"share the ids readme\.md#1"):
        find_files([tmp_path / "one" / "readme.md", tmp_path / "two" / "readme.md"])
    assert len(find_files([tmp_path, tmp_path])) == 2


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(20_000):
            stream.write("some words in a line of text that goes on\n\n" * 10)
    tracemalloc.start()
    count = sum(1 for _ in read_passages(SourceFile(path, "large.txt", "text")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 10_000
    assert peak < path.stat().st_size / 10
