"""Files of a source, and passages of text and JSONL: everything that needs neither the extra nor a model."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_integrations import InvalidInputError, Passage
from rerank_integrations.files import extract_text, read_files
from rerank_integrations.files.chunks import ChunkSplitter
from rerank_integrations.files.reading import ReadingOptions, read_passages
from rerank_integrations.files.sources import SourceFile, find_files

WORDS = 150
LINES = st.lists(
    st.one_of(
        st.just(""),
        st.sampled_from(["# A heading", "- an item", "| a | b |", "```", "中文没有空格。这是一个句子，很长。" * 20]),
        st.text("ab .!\u0301中。\r\t", max_size=40),
        st.just("word " * 200),
    )
)


def _count_words(text: str) -> int:
    return len(text.split())


def _count_letters(text: str) -> int:
    return sum(not letter.isspace() for letter in text)


def _passages(path: Path, kind: str = "text", encoding: str | None = None, overlap: int = 0) -> list[Passage]:
    file = SourceFile(path, path.name, kind)
    splitter = ChunkSplitter(_count_words, WORDS, overlap)
    return list(read_passages(file, ReadingOptions(encoding=encoding), lambda: splitter))


def _texts(path: Path, kind: str = "text") -> list[str]:
    return [passage.text for passage in _passages(path, kind)]


@given(lines=LINES, kind=st.sampled_from(["txt", "md"]), overlap=st.integers(0, 40))
def test_chunks_are_parts_of_the_text_and_lose_nothing(
    lines: list[str], kind: str, overlap: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("texts") / f"file.{kind}"
    path.write_text("\n".join(lines), "utf-8", newline="")
    text = extract_text(path).text
    assert text == path.read_text("utf-8")
    (file,) = find_files([path])
    splitter = ChunkSplitter(_count_letters, 100, overlap)
    passages = list(read_passages(file, ReadingOptions(), lambda: splitter))
    covered = [False] * len(text)
    for passage in passages:
        start, end = passage.metadata["start"], passage.metadata["end"]
        assert text[start:end] == passage.text != ""
        # A letter with its accents is never cut, so a chunk may exceed its size by the accents alone.
        assert _count_letters(passage.text.replace("\u0301", "")) <= 100
        covered[start:end] = [True] * (end - start)
    assert all(letter.isspace() for letter, inside in zip(text, covered, strict=True) if not inside)
    starts = [passage.metadata["start"] for passage in passages]
    assert starts == sorted(set(starts))


def test_neighbouring_chunks_share_whole_sentences(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(" ".join(f"Sentence number {number} ends here." for number in range(100)), "utf-8")
    passages = _passages(path, overlap=20)
    shared = [before.metadata["end"] - after.metadata["start"] for before, after in pairwise(passages)]
    assert len(passages) == 4
    assert all(60 < characters <= 20 * 9 for characters in shared)
    assert all(passage.text.startswith("Sentence") and passage.text.endswith("here.") for passage in passages)


def test_a_long_text_is_split_in_blocks_without_a_seam(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("".join(f"Paragraph {number} has some words.\n\n" for number in range(20_000)), "utf-8")
    passages = _passages(path)
    text = path.read_text("utf-8")
    assert path.stat().st_size > 5 * 2**16
    assert all(text[passage.metadata["start"] : passage.metadata["end"]] == passage.text for passage in passages)
    assert " ".join(passage.text for passage in passages).split() == text.split()
    # Every chunk is full but the last.
    assert {_count_words(passage.text) for passage in passages[:-1]} == {WORDS}


def test_a_long_text_without_a_border_is_split(tmp_path: Path) -> None:
    path = tmp_path / "letters.txt"
    path.write_text("x" * 200_000 + "\n" + " " * 200_000 + "end", "utf-8")
    assert _texts(path) == ["x" * 200_000 + "\n" + " " * 200_000 + "end"]
    file = SourceFile(path, path.name, "text")
    splitter = ChunkSplitter(_count_letters, 1000, 0)
    texts = [passage.text for passage in read_passages(file, ReadingOptions(), lambda: splitter)]
    assert texts == ["x" * 1000] * 200 + ["end"]


def test_a_long_paragraph_is_cut_after_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(("word " * 99 + "end. ") + "More " * 100, "utf-8")
    assert _texts(path)[0].endswith("end.")


def test_chinese_is_cut_after_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("中文没有空格。这是一个很长很长的句子。" * 30, "utf-8")
    splitter = ChunkSplitter(len, 100, 10)
    file = SourceFile(path, path.name, "text")
    passages = list(read_passages(file, ReadingOptions(), lambda: splitter))
    assert all(passage.text.endswith("。") and len(passage.text) <= 100 for passage in passages)
    assert [passage.text[:7] for passage in passages[1:]] == ["中文没有空格。"] * (len(passages) - 1)


def test_a_heading_stays_with_the_text_after_it(tmp_path: Path) -> None:
    path = tmp_path / "guide.md"
    path.write_text(f"# Guide\n\n## Install\n{'Run it. ' * 60}\n\n## Use\n\n{'Call it. ' * 20}\n", "utf-8")
    first, second = _texts(path, "markdown")
    assert first.startswith("# Guide\n\n## Install\nRun it.")
    assert second.startswith("## Use\n\nCall it.")


def test_ids_and_source_contain_the_path_within_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.md").write_text(f"# A\n\n{'text ' * 100}\n\n# B\n\n{'text ' * 100}", "utf-8")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "b.md").write_text("no", "utf-8")
    (folder / "picture.png").write_bytes(b"\x00")
    (file,) = find_files([folder])
    splitter = ChunkSplitter(_count_words, WORDS, 0)
    passages = list(read_passages(file, ReadingOptions(), lambda: splitter))
    assert [passage.id for passage in passages] == ["docs/deep/a.md#1", "docs/deep/a.md#2"]
    assert passages[0].metadata == {"source": "docs/deep/a.md", "start": 0, "end": 504}


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
    first, second, third = read_files(file.path)
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


def test_an_encoding_is_marked_or_named_and_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path.write_bytes("café\r\n中文".encode(encoding))
        assert _texts(path) == ["café\n中文"]
        # A named encoding is for files that are not UTF-8.
        assert [passage.text for passage in _passages(path, encoding="cp1252")] == ["café\n中文"]
    path.write_bytes("caf\xe9 \u201cquoted\u201d".encode("cp1252"))
    assert [passage.text for passage in _passages(path, encoding="cp1252")] == ["caf\xe9 \u201cquoted\u201d"]
    with pytest.raises(InvalidInputError, match=r"notes\.txt: not gb18030"):
        _passages(path, encoding="gb18030")
    with pytest.raises(InvalidInputError, match=r"encoding is 'no-such'; expected a name such as"):
        ReadingOptions(encoding="no-such")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("one\ntwo\ncaf\xe9 au lait".encode("latin-1"), "line 3: not UTF-8"),
        (b"\xef\xbb\xbfone\n\xff", "line 2: not UTF-8"),
        (
            "one\nhello".encode("utf-16-le"),
            "line 1: not UTF-8 (it contains NUL characters); expected UTF-8, or its enc",
        ),
        (b"a" * 70_000 + b"\n" * 70_000 + b"\xff", "line 70001: not UTF-8"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError) as raised:
        _texts(path)
    assert str(raised.value).startswith(f"{path}, {message}")


@pytest.mark.parametrize("name", ["cut.txt.gz", "cut.jsonl.gz", "cut.csv.gz"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(gzip.compress(b"some words " * 1000, mtime=0)[:40], id="cut short"),
        pytest.param(b"no gzip", id="no gzip"),
        pytest.param(b"\x1f\x8b\x08\x00damaged", id="damaged"),
    ],
)
def test_damaged_gzip_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=rf"{name}, line 1: damaged gzip"):
        list(read_files(path)) if name != "cut.txt.gz" else _passages(path)


def test_files_that_cannot_be_indexed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="nothing to index"):
        find_files([tmp_path / "empty"])
    for name in ("table.xlsx", "paper.pdf.gz"):
        (tmp_path / name).write_text("a,b", "utf-8")
        with pytest.raises(InvalidInputError, match=rf"{name} is of an unknown kind"):
            find_files([tmp_path / name])
    with pytest.raises(InvalidInputError, match="does not exist"):
        read_files(tmp_path / "nothing.txt")
    (tmp_path / "table.csv").write_text("a,b", "utf-8")
    with pytest.raises(InvalidInputError, match="is a table of passages"):
        extract_text(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"chunk_tokens": 15}, "chunk_tokens is 15; expected a whole number of at least 16"),
        ({"chunk_tokens": True}, "chunk_tokens is True"),
        ({"chunk_overlap": -1}, "chunk_overlap is -1; expected a whole number of at least 0"),
    ],
)
def test_options_are_checked_before_a_file_is_read(tmp_path: Path, option: dict[str, int], message: str) -> None:
    (tmp_path / "notes.txt").write_text("text", "utf-8")
    with pytest.raises(InvalidInputError, match=message):
        read_files(tmp_path, **option)


def test_an_unreadable_file_is_reported_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"_id": "a", "text": "A"}\nbroken', "utf-8")
    (tmp_path / "b.csv").write_text("_id,text\nb,B\n", "utf-8")
    problems: list[tuple[Path, Exception]] = []
    passages = list(read_files(tmp_path, on_error=lambda path, error: problems.append((path, error))))
    assert [passage.id for passage in passages] == ["a", "b"]
    ((path, error),) = problems
    assert path == tmp_path / "a.jsonl"
    assert "line 2" in str(error)
    with pytest.raises(InvalidInputError, match="line 2"):
        list(read_files(tmp_path))


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
    splitter = ChunkSplitter(lambda text: len(text) // 6, WORDS, 10)
    count = sum(1 for _ in read_passages(SourceFile(path, "large.txt", "text"), ReadingOptions(), lambda: splitter))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 9_000
    assert peak < path.stat().st_size / 10
