"""Write arrays that no codec makes into a compressed index, with the right checksums, and read it in every way.

Run as a program, since what it looks for would end the process: ``hostile_arrays.py INDEX FOLDER SEED CASES [every]``.
Prints how many cases were refused and how many answered; an exception of another kind than ours comes out.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, RerankError

Array = NDArray[Any]
Arrays = dict[str, Array]

CODEC = ("centroids", "codebook", "rotation")
DTYPES = ("u1", "u2", "u4", "i4", "i8", "f2", "f4", "f8", ">u2", ">f4", "?")


def ask(index: ColBERTIndex) -> None:
    """Run every stage of a search, inverted lists included, and read stored vectors."""
    index.search("red fox whale " * 12, 3, n_probe=1, n_candidates=3)
    index.search("red fox", 3, n_probe=4096, n_candidates=3)
    index.search("red fox", 3, exact=True)
    index.rerank("red fox", ["g3", "long"])


def write(path: Path, arrays: Arrays, facts: dict[str, Any]) -> None:
    """Replace arrays of an index and their checksums, and set values in the rows of its codec and segment."""
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as catalog:
        for table in ("codecs", "segments"):
            (folder,) = path.glob(f"{table}/*")
            for name, array in arrays.items():
                if (name in CODEC) == (table == "codecs"):
                    np.save(folder / f"{name}.npy", array)
            sums = json.dumps({file.stem: zlib.crc32(file.read_bytes()) for file in folder.glob("*.npy")})
            catalog.execute(f"UPDATE {table} SET checksums = ?", (sums,))
        for column, value in facts.items():
            table, name = column.split(".")
            catalog.execute(f"UPDATE {table} SET {name} = ?", (value,))
        catalog.commit()


def read(path: Path) -> Arrays:
    return {file.stem: np.load(file) for file in path.glob("*/*/*.npy")}


def other_shape(arrays: Arrays, drawn: random.Random) -> dict[str, Any]:
    name = drawn.choice(sorted(arrays))
    array = arrays[name]
    rows = drawn.choice([0, 1, len(array) - 1, len(array), len(array) + 1])
    width = drawn.choice([0, 1, 3, 4, 6, 8, 12, 16, 17])
    shape = drawn.choice([(rows,), (rows, width), (rows, width, 1), ()])
    arrays[name] = np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)
    return {}


def other_dtype(arrays: Arrays, drawn: random.Random) -> dict[str, Any]:
    name = drawn.choice(sorted(arrays))
    with np.errstate(all="ignore"):
        arrays[name] = arrays[name].astype(drawn.choice(DTYPES))
    return {}


def other_values(arrays: Arrays, drawn: random.Random) -> dict[str, Any]:
    array = arrays[drawn.choice(sorted(arrays))].reshape(-1)
    if array.dtype.kind == "f":
        values = [np.nan, np.inf, -np.inf, 0, -0.0, 1e-30, float(np.finfo(array.dtype).max), -60_000, 60_000]
    else:
        limits = np.iinfo(array.dtype)
        values = [limits.min, limits.max, 0, 1, limits.max // 2, 4095, 4096]
    first = drawn.randrange(len(array))
    array[first : first + drawn.choice([1, 1, 7, len(array)])] = drawn.choice(values)
    return {}


def random_bytes(arrays: Arrays, drawn: random.Random) -> dict[str, Any]:
    array = arrays[drawn.choice(sorted(arrays))]
    array.reshape(-1).view("u1")[:] = np.frombuffer(drawn.randbytes(array.nbytes), "u1")
    return {}


def other_lengths(arrays: Arrays, drawn: random.Random) -> dict[str, Any]:
    """Return lengths with the right sum that are not those of the passages."""
    lengths, total = arrays["lengths"], int(arrays["lengths"].sum())
    lengths[:] = drawn.choice([0, 1, -1])
    lengths[drawn.randrange(len(lengths))] += total - lengths.sum()
    return {}


def other_dimension(arrays: Arrays, drawn: random.Random, every: bool) -> dict[str, Any]:
    """Return the arrays of a whole index of another padded dimension, which fit one another."""
    padded = drawn.choice([2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 36, 40, 100, 104])
    # Other codebooks and scales have their own kernels, which take long to compile.
    per_byte = drawn.choice([1, 2, 3, 4, 8, 16]) if every else 4
    values = np.random.default_rng(drawn.randrange(1 << 30))
    count, tokens = len(arrays["centroids"]), len(arrays["codes"])
    arrays["rotation"] = values.normal(size=(16, padded)).astype("f4")
    arrays["centroids"] = values.normal(size=(count, padded)).astype("f2")
    arrays["codebook"] = values.normal(size=(256, per_byte)).astype("f4")
    arrays["residuals"] = values.integers(0, 256, (tokens, padded // per_byte)).astype("u1")
    return {}


def other_facts(arrays: Arrays, drawn: random.Random) -> dict[str, Any]:
    column = drawn.choice(["codecs.step", "codecs.centroids", "segments.tokens", "segments.passages", "codecs.whole"])
    return {column: drawn.choice([0, -1, 1e308, float("inf"), 2**31, 2**62, 65_537, 4096, 1, "x", None])}


def main(index: Path, folder: Path, seed: int, cases: int, every: bool) -> None:
    drawn = random.Random(seed)
    sound = read(index)
    changes: list[Callable[[Arrays, random.Random], dict[str, Any]]] = [
        other_shape,
        other_dtype,
        other_values,
        random_bytes,
        other_lengths,
        lambda arrays, drawn: other_dimension(arrays, drawn, every),
        other_facts,
    ]
    refused = answered = 0
    for _ in range(cases):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(index, folder)
        arrays = {name: array.copy() for name, array in sound.items()}
        facts: dict[str, Any] = {}
        for change in drawn.choices(changes, k=drawn.choice([1, 1, 2])):
            with contextlib.suppress(ValueError, TypeError, IndexError, KeyError, OverflowError):
                facts |= change(arrays, drawn)
        with contextlib.suppress(sqlite3.IntegrityError):
            write(folder, arrays, facts)
        with ColBERTIndex.open(folder, ToyEncoder(), read_only=True) as opened:
            for call in (lambda: ask(opened), opened.verify):
                try:
                    call()
                    answered += 1
                except RerankError:  # noqa: PERF203
                    refused += 1
    print(json.dumps({"refused": refused, "answered": answered}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), "every" in sys.argv)
