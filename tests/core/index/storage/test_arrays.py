"""Arrays mapped from ``.npy`` files equal numpy's, or raise an error; no Python literal is evaluated."""

from __future__ import annotations

import ast
import gc
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, IndexFormatError, IndexReadError
from rerank_integrations.core.index.storage.arrays import map_npy

WRITTEN: dict[str, NDArray[Any]] = {
    "float16 rows": np.arange(12, dtype=np.float16).reshape(4, 3),
    "float32 rows": np.arange(512, dtype=np.float32).reshape(256, 2),
    "int32": np.arange(7, dtype=np.int32),
    "uint16": np.arange(9, dtype=np.uint16),
    "bytes": np.arange(10, dtype=np.uint8).reshape(5, 2),
    "no rows": np.empty((0, 128), dtype=np.float16),
    "nothing": np.empty(0, dtype=np.int64),
    "a number": np.array(3.5),
    "three dimensions": np.arange(24, dtype=np.int64).reshape(2, 3, 4),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_numpy_writes_is_mapped(tmp_path: Path, kind: str) -> None:
    array = WRITTEN[kind]
    for number, version in enumerate([(1, 0), (2, 0), (3, 0), None]):
        file = tmp_path / f"{number}.npy"
        with file.open("wb") as stream:
            np.lib.format.write_array(stream, array, version=version)
        mapped = map_npy(file)
        assert (mapped.dtype, mapped.shape) == (array.dtype, array.shape)
        assert np.array_equal(mapped, array)
        assert mapped.flags.c_contiguous
        assert not mapped.flags.writeable


def test_a_part_of_an_array_keeps_the_file_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(100_000))
    part = map_npy(tmp_path / "a.npy")[70_000:].reshape(2, -1)[1:]
    gc.collect()
    if os.name == "posix":
        (tmp_path / "a.npy").unlink()
    assert part.sum() == np.arange(85_000, 100_000).sum()


def saved(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def with_header(text: str, data: bytes = bytes(24)) -> bytes:
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


ROWS = "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }"
OTHERS: dict[str, bytes] = {
    "empty": b"",
    "its magic alone": b"\x93NUMPY",
    "a version of the future": b"\x93NUMPY\x09\x00" + saved(np.arange(3))[8:],
    "columns first": saved(np.asfortranarray(np.arange(6).reshape(2, 3))),
    "objects": saved(np.array([None], dtype=object)),
    "records": saved(np.zeros(3, dtype=[("a", "<f4"), ("b", "<i4")])),
    "dates": saved(np.zeros(3, dtype="datetime64[s]")),
    "another byte order": saved(np.arange(3, dtype=">f4")),
    "one byte less": saved(np.arange(3))[:-1],
    "one byte more": saved(np.arange(3)) + b"\0",
    "a length past the end": with_header(ROWS)[:8] + b"\xff\xff" + with_header(ROWS)[10:],
    "numbers out of line": b"\x93NUMPY\x01\x00\x3a\x00" + ROWS.encode() + b"\n" + bytes(24),
    "a float of one byte": with_header(ROWS.replace("<f8", "|f1"), bytes(3)),
    "more than there is": with_header(ROWS.replace("(3,)", "(4,)")),
    "a negative shape": with_header(ROWS.replace("(3,)", "(-3,)")),
    "a shape past all numbers": with_header(ROWS.replace("(3,)", f"({'9' * 30},)")),
    "no element of too many": with_header(ROWS.replace("(3,)", f"(0, {'9' * 18}, {'9' * 18})"), b""),
    "another key": with_header(ROWS.replace("}", "'more': 1, }")),
    "a call": with_header(ROWS.replace("(3,)", "exit()")),
    "deeply nested": with_header("(" * 90),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_anything_else_is_damage(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.npy").write_bytes(OTHERS[kind])
    with pytest.raises(IndexFormatError, match=r"a\.npy is damaged"):
        map_npy(tmp_path / "a.npy")


def test_a_sound_header_is_taken(tmp_path: Path) -> None:
    """The headers above fail for their own reasons, not because of how they are written."""
    (tmp_path / "a.npy").write_bytes(with_header(ROWS))
    assert map_npy(tmp_path / "a.npy").tolist() == [0.0, 0.0, 0.0]


def test_an_index_is_written_and_read_without_parsing_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.11 sometimes fails when several threads parse at once, and a sound index was reported as damaged."""
    index = ColBERTIndex.create(tmp_path / "index", ToyEncoder())
    index.upsert(["warm"])
    index.search("warm")

    def parse(*_: object, **__: object) -> None:
        raise SystemError("AST constructor recursion depth mismatch (before=92, after=87)")

    monkeypatch.setattr(ast, "parse", parse)
    monkeypatch.setattr(ast, "literal_eval", parse)
    with index:
        index.upsert(["a text", "another text"])
        index.delete(["unknown"])
        index.compact()
    with ColBERTIndex.open(tmp_path / "index", ToyEncoder(), read_only=True) as again:
        assert len(again.search("text", 2)) == 2
        assert again.verify().passages == 3


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_memory_that_is_not_there_is_said_as_such(tmp_path: Path) -> None:
    import resource

    size = 1 << 42
    with (tmp_path / "a.npy").open("wb") as stream:
        stream.write(with_header(ROWS.replace("(3,)", f"({size // 8},)"), b""))
        stream.truncate(128 + size)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, hard))
    try:
        with pytest.raises(IndexReadError, match=r"no memory.*ulimit -v"):
            map_npy(tmp_path / "a.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pipes among files")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_plain_file_is_damage_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    with ColBERTIndex.create(tmp_path / "index", ToyEncoder()) as index:
        index.upsert(["some text"])
    (tokens,) = (tmp_path / "index").rglob("tokens.npy")
    tokens.unlink()
    if kind == "pipe":
        os.mkfifo(tokens)
    else:
        tokens.symlink_to("/dev/zero")
    with ColBERTIndex.open(tmp_path / "index", ToyEncoder(), read_only=True) as index:
        for call in (index.verify, lambda: index.search("text")):
            with pytest.raises(IndexFormatError, match="plain file"):
                call()
