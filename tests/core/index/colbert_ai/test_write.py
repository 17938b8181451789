"""Writing index folders in colbert-ai's format; test_interop opens them with colbert-ai itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colbert_ai_folders import TEXTS, write_folder
from full_disk import files_limited_to

from rerank_integrations import IndexExistsError, IndexWriteError, InvalidInputError, Passage
from rerank_integrations.core.index.colbert_ai import (
    ColbertAIIndex,
    ColbertAIWriter,
    open_colbert_ai,
    quantile_buckets,
    read_collection,
)

PASSAGES = [
    Passage("a", TEXTS[0], {"year": 2024, "tags": ["x", None]}),
    Passage("b#1", "tab\tline\nbreak\r\nand \u2028 all  "),
    Passage("7", ""),
    Passage('"quoted" ü', TEXTS[3], {"document_id": "of its own"}),
    Passage("e", 'Ünïcode 日本語 "quotes" \\ '),
]


@pytest.fixture
def index(tmp_path: Path) -> ColbertAIIndex:
    return open_colbert_ai(write_folder(tmp_path / "from"))


def add_all(writer: ColbertAIWriter, index: ColbertAIIndex, passages: list[Passage] = PASSAGES) -> None:
    for chunk in index.chunks():
        of_chunk = passages[chunk.first_pid : chunk.first_pid + len(chunk.lengths)]
        writer.add(chunk.codes, chunk.residuals, chunk.lengths, of_chunk)


def test_what_is_written_is_read_back(index: ColbertAIIndex, tmp_path: Path) -> None:
    with ColbertAIWriter(tmp_path / "new" / "to", index.codec, "some/model") as writer:
        add_all(writer, index)
        assert not (tmp_path / "new" / "to").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["to"]
    again = open_colbert_ai(tmp_path / "new" / "to")
    assert again.checkpoint == "some/model"
    for field in dataclasses.fields(index.codec):
        np.testing.assert_array_equal(getattr(again.codec, field.name), getattr(index.codec, field.name))
    for ours, theirs in zip(again.chunks(), index.chunks(), strict=True):
        for field in dataclasses.fields(ours):
            np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))
    assert list(read_collection(again)) == list(enumerate(PASSAGES))
    # For colbert-ai, which reads lines.
    tsv = read_collection(again, again.path / "collection.tsv")
    assert [passage.text for _, passage in tsv][1:3] == ["tab line break  and \u2028 all", ""]


def test_inverted_lists_name_each_passage_once(index: ColbertAIIndex, tmp_path: Path) -> None:
    with ColbertAIWriter(tmp_path / "to", index.codec) as writer:
        add_all(writer, index)
    lists, lengths = torch.load(tmp_path / "to" / "ivf.pid.pt", weights_only=True)
    assert (lists.dtype, lengths.dtype) == (torch.int32, torch.int64)
    expected: list[set[int]] = [set() for _ in index.codec.centroids]
    for chunk in index.chunks():
        for code, pid in zip(chunk.codes, np.repeat(np.arange(len(chunk.lengths)), chunk.lengths), strict=True):
            expected[code].add(chunk.first_pid + int(pid))
    ends = lengths.cumsum(0).tolist()
    found = [lists[end - length : end].tolist() for end, length in zip(ends, lengths.tolist(), strict=True)]
    assert found == [sorted(pids) for pids in expected]


def test_the_settings_are_those_that_colbert_ai_looks_up(index: ColbertAIIndex, tmp_path: Path) -> None:
    with ColbertAIWriter(tmp_path / "to", index.codec) as writer:
        add_all(writer, index)
    metadata, plan = (json.loads((tmp_path / "to" / name).read_text()) for name in ("metadata.json", "plan.json"))
    assert metadata["config"] == plan["config"]
    assert metadata["config"] == {"dim": 32, "nbits": 2, "checkpoint": None, "index_name": "to"}
    assert (metadata["num_embeddings"], metadata["avg_doclen"], metadata["num_partitions"]) == (15, 3.0, 6)
    assert set(plan) == {"config", "num_chunks", "num_partitions", "num_embeddings_est", "avg_doclen_est"}


def test_an_error_in_the_block_leaves_nothing(index: ColbertAIIndex, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), ColbertAIWriter(tmp_path / "to", index.codec) as writer:
            add_all(writer, index)
            raise error
    with pytest.raises(InvalidInputError, match="no tokens"), ColbertAIWriter(tmp_path / "to", index.codec):
        pass
    assert set(tmp_path.iterdir()) == before


def test_what_stands_there_is_left_alone(index: ColbertAIIndex, tmp_path: Path) -> None:
    with pytest.raises(IndexExistsError, match="expected nothing there"), ColbertAIWriter(index.path, index.codec):
        pass
    (tmp_path / "file").write_text("kept")
    with pytest.raises(IndexExistsError), ColbertAIWriter(tmp_path / "file", index.codec):
        pass
    (tmp_path / "to").mkdir()
    with (
        pytest.raises(IndexWriteError, match="nothing is left"),
        ColbertAIWriter(tmp_path / "to", index.codec) as writer,
    ):
        add_all(writer, index)
        (tmp_path / "to" / "meanwhile").touch()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["file", "from", "to"]
    index.check_all()
    (tmp_path / "to" / "meanwhile").unlink()
    with ColbertAIWriter(tmp_path / "to", index.codec) as writer:
        add_all(writer, index)
    open_colbert_ai(tmp_path / "to").check_all()


@pytest.mark.parametrize("size", [0, 1000, 1500, 100_000])
def test_a_full_disk_leaves_nothing(index: ColbertAIIndex, tmp_path: Path, size: int) -> None:
    long = [dataclasses.replace(passage, text="word " * 10_000) for passage in PASSAGES]
    before = set(tmp_path.iterdir())
    with (
        pytest.raises(IndexWriteError, match="nothing is left there"),
        files_limited_to(size),
        ColbertAIWriter(tmp_path / "to", index.codec) as writer,
    ):
        add_all(writer, index, long)
    assert set(tmp_path.iterdir()) == before


def test_a_write_error_that_is_passed_over_still_counts(index: ColbertAIIndex, tmp_path: Path) -> None:
    with (
        pytest.raises(IndexWriteError, match="an earlier write"),
        ColbertAIWriter(tmp_path / "to", index.codec) as writer,
    ):
        add_all(writer, index)
        with files_limited_to(10), contextlib.suppress(IndexWriteError):
            add_all(writer, index, [Passage(f"again {place}", "") for place in range(5)])
    assert not (tmp_path / "to").exists()


def test_a_parent_that_is_a_file(index: ColbertAIIndex, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexWriteError), ColbertAIWriter(tmp_path / "file" / "to", index.codec):
        pass


CHUNK_DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "a code past the centroids": ({"codes": np.full(9, 6, np.int32)}, "expected 0 to 5"),
    "codes of another kind": ({"codes": np.zeros(9, np.int64)}, "expected int32"),
    "residuals of another width": ({"residuals": np.zeros((9, 7), np.uint8)}, r"expected uint8 of \(9, 8\)"),
    "lengths that do not sum": ({"lengths": np.array([3, 2, 5], np.int32)}, "sum to 10; expected 9"),
    "lengths of another kind": ({"lengths": np.array([3, 2, 4])}, "expected int32"),
    "a negative length": ({"lengths": np.array([3, 7, -1], np.int32)}, "none negative"),
    "a passage too few": ({"passages": PASSAGES[:2]}, "3 lengths and 2 passages"),
    "an id twice": ({"passages": [PASSAGES[0], *PASSAGES[:2]]}, "'a' comes twice"),
    "a text that is not Unicode": ({"passages": [*PASSAGES[:2], Passage("u", "\ud800")]}, "not valid Unicode"),
}


@pytest.mark.parametrize("damage", CHUNK_DAMAGE)
def test_a_refused_chunk_does_no_harm(index: ColbertAIIndex, tmp_path: Path, damage: str) -> None:
    change, message = CHUNK_DAMAGE[damage]
    chunk = next(index.chunks())
    sound = {"codes": chunk.codes, "residuals": chunk.residuals, "lengths": chunk.lengths, "passages": PASSAGES[:3]}
    with ColbertAIWriter(tmp_path / "to", index.codec) as writer:
        with pytest.raises(InvalidInputError, match=message):
            writer.add(**{**sound, **change})
        add_all(writer, index)
        with pytest.raises(InvalidInputError, match="comes twice"):
            writer.add(**sound)
    assert list(read_collection(open_colbert_ai(tmp_path / "to"))) == list(enumerate(PASSAGES))


def test_chunks_are_no_larger_than_colbert_ais(index: ColbertAIIndex, tmp_path: Path) -> None:
    many = [Passage(str(place), "") for place in range(25_001)]
    lengths = np.zeros(25_001, np.int32)
    lengths[0] = 9
    chunk = next(index.chunks())
    with ColbertAIWriter(tmp_path / "to", index.codec) as writer:
        with pytest.raises(InvalidInputError, match="from 1 to 25000"):
            writer.add(chunk.codes, chunk.residuals, lengths, many)
        writer.add(chunk.codes, chunk.residuals, lengths[:-1], many[:-1])
    written = open_colbert_ai(tmp_path / "to")
    written.check_all()
    assert len(read_collection(written)) == 25_000
    with pytest.raises(InvalidInputError, match="inside its with block"):
        writer.add(chunk.codes, chunk.residuals, lengths[:-1], many[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nbits": 3}, "nbits is 3"),
        ({"nbits": 4}, "bucket_weights"),
        ({"centroids": np.full((3, 32), 0.1, np.float32)}, "not float16 numbers"),
        ({"centroids": np.full((3, 32), 1e9, np.float32)}, "not float16 numbers"),
        ({"centroids": np.full((3, 32), np.nan, np.float32)}, "NaN"),
        ({"centroids": np.zeros((0, 32), np.float32)}, "at least one"),
        ({"centroids": np.zeros((3, 24), np.float32)}, "multiple of 16"),
        ({"bucket_cutoffs": np.array([1, 0, 2], np.float32)}, "descends"),
        ({"avg_residual": float("inf")}, "finite"),
    ],
)
def test_codecs_that_colbert_ai_could_not_load(
    index: ColbertAIIndex, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ColbertAIWriter(tmp_path / "to", dataclasses.replace(index.codec, **change))


def test_buckets_of_a_sample_make_a_codec(index: ColbertAIIndex, tmp_path: Path) -> None:
    cutoffs, weights = quantile_buckets(np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32), 2)
    codec = dataclasses.replace(index.codec, bucket_cutoffs=cutoffs, bucket_weights=weights)
    with ColbertAIWriter(tmp_path / "to", codec) as writer:
        add_all(writer, index)
    np.testing.assert_array_equal(open_colbert_ai(tmp_path / "to").codec.bucket_weights, weights)
