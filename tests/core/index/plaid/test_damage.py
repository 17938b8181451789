"""Damaged files of a compressed index are named in an error and never read past their end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_arrays
import numpy as np
import pytest
from grown import ENOUGH, many
from hostile_arrays import read, write
from numpy.typing import NDArray
from toy import ToyEncoder, child_env

from rerank_integrations import ColBERTIndex, IndexFormatError, Passage, RerankError

SEGMENT = ["codes", "residuals", "scales", "lengths", "list_starts", "listed"]
CODEC = ["centroids", "codebook", "rotation"]
FILES = [f"segments/*/{name}.npy" for name in SEGMENT] + [f"codecs/*/{name}.npy" for name in CODEC]
# 2^floor(log2(16 sqrt(tokens)))
CENTROIDS = 4096
PASSAGES = [*many(ENOUGH), Passage("long", "red fox whale " * 22_000)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a sound index of one segment, large enough for inverted lists."""
    path = tmp_path_factory.mktemp("sound") / "index"
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(PASSAGES)
        assert (index.stats().centroids, index.stats().segments) == (CENTROIDS, 1)
    return path


@pytest.fixture
def made(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "index"))


def file_of(path: Path, pattern: str) -> Path:
    (file,) = path.glob(pattern)
    return file


def ask(index: ColBERTIndex) -> None:
    """Run every stage of a search, inverted lists included."""
    index.search("red fox", 3, n_probe=1, n_candidates=3)
    index.search("red fox", 100)
    index.rerank("red fox", ["g3", "long"])


def damaged(path: Path, file: Path) -> None:
    for read_only in (True, False):
        with ColBERTIndex.open(path, ToyEncoder(), read_only=read_only) as index:
            for call in (lambda: ask(index), index.verify):
                with pytest.raises(IndexFormatError, match=file.parent.name):
                    call()
            assert index.get(["g3"]) == [PASSAGES[3]]
            assert len(index) == len(PASSAGES)


@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("keep", [0, -1])
@pytest.mark.slow
def test_a_truncated_file(made: Path, pattern: str, keep: int) -> None:
    file = file_of(made, pattern)
    os.truncate(file, keep if keep >= 0 else file.stat().st_size + keep)
    damaged(made, file)


@pytest.mark.parametrize("pattern", FILES)
def test_a_file_that_is_gone(made: Path, pattern: str) -> None:
    file = file_of(made, pattern)
    file.unlink()
    damaged(made, file)


@pytest.mark.parametrize("kind", ["segments", "codecs"])
def test_a_folder_that_is_gone(made: Path, kind: str) -> None:
    folder = file_of(made, f"{kind}/*")
    shutil.rmtree(folder)
    damaged(made, folder / "any")


def test_a_damaged_segment_is_written_anew(made: Path) -> None:
    file_of(made, "segments/*/codes.npy").unlink()
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        with pytest.raises(IndexFormatError, match="damaged"):
            index.upsert([Passage(f"new{number}", "red") for number in range(3)])
            index.compact()
        index.delete([passage.id for passage in PASSAGES])
        index.upsert(PASSAGES[:50])
        index.compact()
        assert index.verify().passages == 53
        assert len(index.search("red fox", 100)) == 53


def test_residuals_column_by_column(made: Path) -> None:
    file = file_of(made, "segments/*/residuals.npy")
    np.save(file, np.asfortranarray(np.load(file)))
    damaged(made, file)


def test_lists_of_another_byte_order(made: Path) -> None:
    file = file_of(made, "segments/*/listed.npy")
    np.save(file, np.load(file).astype(">u2"))
    damaged(made, file)


Change = Callable[[NDArray[Any]], object]
IMPOSSIBLE: dict[str, tuple[str, Change]] = {
    "codes that are no centroid's": ("codes", lambda array: array.fill(65_535)),
    "one code past the last centroid": ("codes", lambda array: array.__setitem__(7, CENTROIDS)),
    "lists of passages that are none": ("listed", lambda array: array.fill(65_535)),
    "lists that end past the last": ("list_starts", lambda array: array.__setitem__(slice(1, None), 2**31 - 1)),
    "lists that start before the first": ("list_starts", lambda array: array.__setitem__(slice(None, -1), -(2**31))),
    "lists that fall": ("list_starts", lambda array: array.__setitem__(5, array[-1])),
    "lengths below 0": ("lengths", lambda array: array.__setitem__(slice(0, 2), [array[0] + array[1] + 9, -9])),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_numbers_that_point_nowhere(made: Path, kind: str) -> None:
    """The kernels check nothing else, and reading past an array's end would crash the process."""
    name, change = IMPOSSIBLE[kind]
    file = file_of(made, f"segments/*/{name}.npy")
    array = np.load(file)
    change(array)
    np.save(file, array)
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index:
        for call in (lambda: index.search("red fox", 3, n_probe=CENTROIDS, n_candidates=3), index.verify):
            with pytest.raises(IndexFormatError, match="damaged"):
                call()


RULES: dict[str, tuple[str, str, Change]] = {
    "a number that is none in a rotation": ("rotation", "rotation", lambda array: array.__setitem__((3, 3), np.nan)),
    "an infinite centroid": ("centroids", "centroids", lambda array: array.__setitem__(7, np.inf)),
    "a codebook past float16": ("codebook", "codebook", lambda array: array.__setitem__((255, 1), 1e30)),
    "a codebook of 3 columns": ("codebook", "codebook", lambda array: array[:, :3].copy()),
    "a padded dimension of 12": ("rotation", "rotation", lambda array: array[:, :12].copy()),
    "fewer rows than dimensions": ("rotation", "dimensions", lambda array: array[:8].copy()),
    "scales of another kind": ("scales", "scales", lambda array: array.astype(np.uint16)),
    "residuals too narrow": ("residuals", "residuals", lambda array: array[:, :2].copy()),
    "a list too few": ("list_starts", "lists", lambda array: array[1:].copy()),
    "lists of signed numbers": ("listed", "lists", lambda array: array.astype(np.int32)),
}


@pytest.mark.parametrize("kind", RULES)
def test_arrays_that_break_a_rule_of_the_compiled_loops(made: Path, kind: str) -> None:
    """The checksums are right, so only the rules keep the kernels from reading past an array's end."""
    name, message, change = RULES[kind]
    array = read(made)[name]
    changed = change(array)
    arrays = {name: array if changed is None else changed}
    if kind == "a padded dimension of 12":
        arrays |= {
            "centroids": read(made)["centroids"][:, :12].copy(),
            "residuals": read(made)["residuals"][:, :3].copy(),
        }
    write(made, arrays, {})
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index:
        for call in (lambda: ask(index), index.verify):
            with pytest.raises(IndexFormatError, match=message):
                call()


@pytest.mark.parametrize("step", [0.0, -1.0, 1e308, float("inf")])
def test_a_step_that_is_none(made: Path, step: float) -> None:
    write(made, {}, {"codecs.step": step})
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index, pytest.raises(IndexFormatError, match="step"):
        ask(index)


def fuzz(sound: Path, folder: Path, seed: int, cases: int, *more: str) -> dict[str, int]:
    program = Path(hostile_arrays.__file__)
    command = [sys.executable, str(program), str(sound), str(folder), str(seed), str(cases), *more]
    done = subprocess.run(command, capture_output=True, text=True, env=child_env())
    assert done.returncode == 0, (seed, done.returncode, done.stderr[-2000:])
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


@pytest.mark.slow
def test_arbitrary_arrays_are_refused_or_answered(sound: Path, tmp_path: Path) -> None:
    counts = fuzz(sound, tmp_path / "index", 1, 20)
    assert counts["refused"] > 15
    assert counts["answered"] > 0


@pytest.mark.slow
def test_many_arbitrary_arrays_are_refused_or_answered(sound: Path, tmp_path: Path) -> None:
    fuzz(sound, tmp_path / "index", 2, 80, "every")


def flip_each(path: Path, pattern: str, step: int) -> None:
    file = file_of(path, pattern)
    content = file.read_bytes()
    size = len(content)
    for place in [*range(0, 128, step), *range(128, size, max(1, size // (40 // step)))]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        file.write_bytes(flipped)
        with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as index:
            with pytest.raises(IndexFormatError, match=file.parent.name):
                index.verify()
            with contextlib.suppress(RerankError):
                ask(index)
    file.write_bytes(content)
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        index.verify()


@pytest.mark.parametrize("pattern", ["segments/*/residuals.npy", "codecs/*/centroids.npy"])
def test_flipped_bytes_are_found_by_verify(made: Path, pattern: str) -> None:
    """Flipped bytes in headers and in data; if a search raises, it is an error of this package."""
    flip_each(made, pattern, step=32)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", FILES)
def test_many_flipped_bytes_are_found_by_verify(made: Path, pattern: str) -> None:
    flip_each(made, pattern, step=16)


def test_a_catalog_that_lacks_the_codec(made: Path) -> None:
    with contextlib.closing(sqlite3.connect(made / "catalog.sqlite")) as connection:
        connection.execute("DELETE FROM codecs")
        connection.commit()
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index:
        for call in (lambda: ask(index), index.verify):
            with pytest.raises(IndexFormatError, match="codecs"):
                call()


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: os.truncate(file, 500)], ids=["gone", "truncated"])
def test_a_damaged_segment_is_not_compressed(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    """Compressing would give the damage a valid checksum. The passages of that upsert are stored first."""
    path = tmp_path / "index"
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(many(ENOUGH - 5))
        index.upsert([Passage("last", "red fox")])
        file = next(file for file in path.glob("segments/*/tokens.npy") if file.stat().st_size > 1000)
        harm(file)
        with pytest.raises(IndexFormatError, match=file.parent.name):
            index.upsert([Passage(f"new{number}", "red") for number in range(4)])
        assert (index.stats().kind, len(index)) == ("exact", ENOUGH)
        assert list((path / "codecs").glob("*")) == []
