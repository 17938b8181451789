"""Folders that are not an index and damaged files raise an error that names them; the rest stays readable."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest
from damaged_index import PASSAGES, answers, make_two_segments
from toy import ToyEncoder

from rerank_integrations import (
    ColBERTIndex,
    IndexExistsError,
    IndexFormatError,
    IndexWriteError,
    Passage,
    RerankError,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def made(path: Path) -> Path:
    return make_two_segments(path)


def segment_files(path: Path, name: str) -> list[Path]:
    files = sorted((path / "segments").glob(f"*/{name}"))
    assert len(files) == 2
    return files


# --- paths that are not an index ---


def test_a_folder_that_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "catalog.sqlite").mkdir()
    for where in (tmp_path, tmp_path / "none", tmp_path / "file.txt", tmp_path / "file.txt" / "x", tmp_path / "folder"):
        for read_only in (False, True):
            with pytest.raises(IndexFormatError, match=r"catalog\.sqlite"):
                ColBERTIndex.open(where, read_only=read_only)
    with pytest.raises(IndexWriteError, match="cannot make a folder"):
        ColBERTIndex.create(tmp_path / "file.txt" / "index", ToyEncoder())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["catalog.sqlite", "file.txt", "folder"]


GARBAGE = {"empty": b"", "text": b"this is no database, but a text of some length\n" * 99, "zeros": bytes(8192)}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_catalog_that_is_garbage(path: Path, kind: str, read_only: bool) -> None:
    path.mkdir()
    (path / "catalog.sqlite").write_bytes(GARBAGE[kind])
    with pytest.raises(IndexFormatError, match=str(path)):
        ColBERTIndex.open(path, ToyEncoder(), read_only=read_only)
    if kind == "text":
        for overwrite in (False, True):
            with pytest.raises(IndexFormatError, match="catalog"):
                ColBERTIndex.create(path, ToyEncoder(), overwrite=overwrite)
        assert (path / "catalog.sqlite").read_bytes() == GARBAGE[kind]


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    path.mkdir()
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as theirs:
        theirs.execute("CREATE TABLE meta (theirs TEXT)")
        theirs.execute("INSERT INTO meta VALUES ('precious')")
        theirs.commit()
    with pytest.raises(IndexFormatError, match="not an index"):
        ColBERTIndex.open(path, ToyEncoder())
    for overwrite in (False, True):
        with pytest.raises(IndexFormatError, match="another program"):
            ColBERTIndex.create(path, ToyEncoder(), overwrite=overwrite)
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as theirs:
        assert theirs.execute("SELECT * FROM meta").fetchall() == [("precious",)]


@pytest.mark.parametrize("keep", [10, 100, 4096, 5000, 0.5, 0.9])
def test_a_truncated_catalog(made: Path, keep: float) -> None:
    catalog = made / "catalog.sqlite"
    size = catalog.stat().st_size
    os.truncate(catalog, keep if isinstance(keep, int) else int(size * keep))
    with (
        pytest.raises(IndexFormatError, match="catalog"),
        ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index,
    ):
        index.verify()


def change_catalog(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_format_of_the_future(made: Path) -> None:
    change_catalog(made, "UPDATE meta SET value = '99' WHERE key = 'format'")
    with pytest.raises(IndexFormatError, match=r"'99'.*reads 2"):
        ColBERTIndex.open(made, ToyEncoder())
    with pytest.raises(IndexExistsError):
        ColBERTIndex.create(made, ToyEncoder())


@pytest.mark.parametrize("key", ["fingerprint", "generation", "model"])
def test_a_catalog_without_its_own_facts(made: Path, key: str) -> None:
    change_catalog(made, f"DELETE FROM meta WHERE key = '{key}'")
    with pytest.raises(IndexFormatError, match=key):
        ColBERTIndex.open(made)


@pytest.mark.parametrize("record", ["garbage", "[]", '{"name_or_path": "x", "no_such": 1}', '{"name_or_path": 7}'])
def test_a_model_record_that_builds_none(made: Path, record: str) -> None:
    change_catalog(made, f"UPDATE meta SET value = '{record}' WHERE key = 'model'")
    with pytest.raises(IndexFormatError, match="pass the model"):
        ColBERTIndex.open(made)
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        assert answers(index)[-1] == len(PASSAGES)


# --- damaged segments ---


def damaged(path: Path, message: str) -> None:
    """Assert that search and verify name the damage, and that look-ups and writes still work."""
    for read_only in (True, False):
        with ColBERTIndex.open(path, ToyEncoder(), read_only=read_only) as index:
            for call in (lambda: index.search("text"), lambda: index.rerank("text", ["p1"]), index.verify):
                with pytest.raises(IndexFormatError, match=message):
                    call()
            assert index.get(["p3"]) == [PASSAGES[3]]
            assert len(index) == len(PASSAGES)
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        index.delete([passage.id for passage in PASSAGES])
        index.upsert(PASSAGES)
        index.compact()
        assert index.verify().passages == len(PASSAGES)
        assert len(index.search("text", 50)) == len(PASSAGES)


@pytest.mark.parametrize("name", ["tokens.npy", "lengths.npy"])
@pytest.mark.parametrize("keep", [0, 5, 60, 128, 130, -1])
def test_a_truncated_segment_file(made: Path, name: str, keep: int) -> None:
    file = segment_files(made, name)[1]
    os.truncate(file, keep if keep >= 0 else file.stat().st_size + keep)
    damaged(made, str(file))


@pytest.mark.parametrize("name", ["tokens.npy", "lengths.npy"])
def test_a_segment_file_that_is_gone(made: Path, name: str) -> None:
    file = segment_files(made, name)[0]
    file.unlink()
    damaged(made, str(file))


def test_a_segment_folder_that_is_gone(made: Path) -> None:
    folder = segment_files(made, "tokens.npy")[0].parent
    shutil.rmtree(folder)
    damaged(made, str(folder))


def test_verify_lists_every_damaged_file(made: Path) -> None:
    first, second = segment_files(made, "tokens.npy")
    os.truncate(first, 100)
    second.unlink()
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index, pytest.raises(IndexFormatError) as caught:
        index.verify()
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


@pytest.mark.parametrize("name", ["tokens.npy", "lengths.npy"])
def test_any_flipped_byte_is_found_by_verify(made: Path, name: str) -> None:
    """A flipped byte in header or data; if a search raises, it is an error of this package."""
    file = segment_files(made, name)[0]
    sound = file.read_bytes()
    rest = sound[128::37]
    for place in [*range(128), *range(128, 128 + 37 * len(rest), 37)]:
        flipped = bytearray(sound)
        flipped[place] ^= 1 << (place % 8)
        file.write_bytes(flipped)
        with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index:
            with pytest.raises(IndexFormatError, match=str(file)):
                index.verify()
            with contextlib.suppress(RerankError):
                index.search("text")
    file.write_bytes(sound)
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        index.verify()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_no_numbers_are_damage_whatever_their_checksum(made: Path, value: float) -> None:
    """A score of NaN has no order: fewer passages were returned, or the query was blamed."""
    file = segment_files(made, "tokens.npy")[0]
    tokens = np.load(file)
    tokens[3] = value
    np.save(file, tokens)
    sums = json.dumps({other.stem: zlib.crc32(other.read_bytes()) for other in file.parent.glob("*.npy")})
    change_catalog(made, f"UPDATE segments SET checksums = '{sums}' WHERE name = '{file.parent.name}'")
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index:
        ids = [passage.id for passage in PASSAGES]
        for call in (lambda: index.search("text", 3), lambda: index.rerank("text", ids), index.verify):
            with pytest.raises(IndexFormatError, match=rf"{file.parent.name}.*not finite"):
                call()


def test_compact_does_not_make_damage_look_sound(made: Path) -> None:
    file = segment_files(made, "tokens.npy")[0]
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        with pytest.raises(IndexFormatError, match=str(file)):
            index.compact()
        # Small segments are joined on the way: that must not hide it either, nor keep passages from being stored.
        for number in range(20):
            index.upsert([Passage(f"new{number}", "text")])
        assert len(index) == len(PASSAGES) + 20
        with pytest.raises(IndexFormatError, match=str(file)):
            index.verify()


def test_passages_that_point_nowhere(made: Path) -> None:
    change_catalog(made, "UPDATE passages SET ordinal = 99 WHERE id = 'p3'")
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index:
        for call in (lambda: index.search("text"), index.verify):
            with pytest.raises(IndexFormatError, match="damaged"):
                call()
