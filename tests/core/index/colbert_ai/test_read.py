"""Reading index folders in colbert-ai's format: sound ones open, all others raise a clear error."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colbert_ai_folders import CENTROIDS, CHUNKS, DIM, NBITS, arrays, change_json, write_folder, write_json
from toy import child_env

from rerank_integrations import IndexFormatError, InvalidInputError
from rerank_integrations.core.index.colbert_ai import codebook, open_colbert_ai, pack, quantile_buckets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "index")


def read_all(path: Path) -> None:
    open_colbert_ai(path).check_all()


def test_a_sound_folder_opens(folder: Path) -> None:
    index, stored = open_colbert_ai(folder), arrays()
    assert (index.codec.dim, index.codec.nbits, index.checkpoint) == (DIM, NBITS, "some/model")
    assert (index.num_chunks, index.num_passages, index.num_tokens) == (2, 5, 15)
    assert index.codec.avg_residual == 0.125
    np.testing.assert_array_equal(index.codec.centroids, stored["centroids.pt"].float().numpy())
    np.testing.assert_array_equal(index.codec.bucket_cutoffs, stored["buckets.pt"][0].numpy())
    np.testing.assert_array_equal(index.codec.bucket_weights, stored["buckets.pt"][1].numpy())
    assert index.codec.centroids.dtype == index.codec.bucket_weights.dtype == np.float32
    index.check_all()
    chunks = list(index.chunks())
    assert [chunk.first_pid for chunk in chunks] == [0, 3]
    for number, chunk in enumerate(chunks):
        np.testing.assert_array_equal(chunk.codes, stored[f"{number}.codes.pt"].numpy())
        np.testing.assert_array_equal(chunk.residuals, stored[f"{number}.residuals.pt"].numpy())
        assert chunk.lengths.tolist() == CHUNKS[number]


def test_reading_needs_neither_torch_nor_colbert(folder: Path) -> None:
    code = """
import sys
sys.modules["torch"] = sys.modules["colbert"] = None
from rerank_integrations.core.index.colbert_ai import open_colbert_ai, read_collection
index = open_colbert_ai(sys.argv[1])
index.check_all()
print(len(read_collection(index)))
"""
    child = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False, env=child_env()
    )
    assert child.stdout.strip() == "5", child.stderr


@pytest.mark.parametrize(
    "saved",
    [torch.tensor(0.125), torch.tensor([0.125]), torch.tensor(0.125, dtype=torch.float16), torch.arange(3) / 8],
    ids=["number", "row", "half", "slice"],
)
def test_forms_in_which_colbert_ai_saves_on_gpu_and_cpu(folder: Path, saved: Any) -> None:
    # A slice is saved with its whole storage, as IndexUpdater's new chunks are.
    torch.save(saved[1:2] if saved.numel() > 1 else saved, folder / "avg_residual.pt")
    torch.save([half.half() for half in arrays()["buckets.pt"]], folder / "buckets.pt")
    torch.save(arrays()["centroids.pt"].float(), folder / "centroids.pt")
    index = open_colbert_ai(folder)
    assert index.codec.avg_residual == 0.125
    np.testing.assert_allclose(index.codec.bucket_weights, [-0.2, -0.05, 0.05, 0.2], rtol=1e-3)


def test_an_index_that_the_updater_changed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A removed passage has no tokens; the count of all tokens is too large, as colbert-ai's updater leaves it."""
    write_json(folder / "doclens.1.json", [0, 5])
    change_json(folder / "1.metadata.json", num_embeddings=5)
    for name in ("1.codes.pt", "1.residuals.pt"):
        torch.save(arrays()[name][1:], folder / name)
    index = open_colbert_ai(folder)
    index.check_all()
    assert (index.num_passages, index.num_tokens) == (5, 14)
    assert "announces 15 tokens" in caplog.text


JSON_DAMAGE: dict[str, tuple[str, Any, str]] = {
    "metadata is a list": ("metadata.json", [], "JSON object"),
    "no config": ("metadata.json", {"config": ...}, "config"),
    "config is text": ("metadata.json", {"config": "x"}, "config"),
    "no nbits": ("metadata.json", {"config": {"dim": DIM}}, "lacks 'nbits'"),
    "no dim": ("metadata.json", {"config": {"nbits": 2}}, "lacks 'dim'"),
    "nbits 3": ("metadata.json", {"config": {"dim": DIM, "nbits": 3}}, "expected one of 1, 2, 4, 8"),
    "nbits true": ("metadata.json", {"config": {"dim": DIM, "nbits": True}}, "nbits"),
    "nbits against the residuals": ("metadata.json", {"config": {"dim": DIM, "nbits": 4}}, r"buckets.pt.*shape \(3,\)"),
    "dim against the centroids": ("metadata.json", {"config": {"dim": 64, "nbits": 2}}, "centroids.pt.*64"),
    "dim not packable": ("metadata.json", {"config": {"dim": 20, "nbits": 2}}, "multiple of 16"),
    "no chunk count": ("metadata.json", {"num_chunks": ...}, "lacks 'num_chunks'"),
    "no chunks": ("metadata.json", {"num_chunks": 0}, "at least 1"),
    "chunk count is a float": ("metadata.json", {"num_chunks": 2.0}, "2.0"),
    "a chunk too many": ("metadata.json", {"num_chunks": 3}, "2.metadata.json is missing"),
    "no end of chunks": ("metadata.json", {"num_chunks": 10**30}, "2.metadata.json is missing"),
    "a chunk too few": ("metadata.json", {"num_chunks": 1}, "holds a chunk 1"),
    "no token count": ("metadata.json", {"num_embeddings": ...}, "lacks 'num_embeddings'"),
    "too few tokens": ("metadata.json", {"num_embeddings": 14}, "announces 14"),
    "other centroids": ("metadata.json", {"num_partitions": 5}, "6 centroids; expected 5"),
    "chunk lacks a key": ("1.metadata.json", {"passage_offset": ...}, "lacks 'passage_offset'"),
    "chunk starts elsewhere": ("1.metadata.json", {"passage_offset": 4}, "expected 3"),
    "chunk counts passages wrongly": ("0.metadata.json", {"num_passages": 4}, "expected 3"),
    "chunk counts tokens wrongly": ("0.metadata.json", {"num_embeddings": 8}, "expected 9"),
    "lengths do not sum": ("doclens.0.json", [3, 2, 5], "expected 10"),
    "lengths are an object": ("doclens.0.json", {}, "JSON array"),
    "a negative length": ("doclens.0.json", [3, 7, -1], "token counts"),
    "a length that is text": ("doclens.0.json", [3, 2, "4"], "token counts"),
    "a huge length": ("doclens.0.json", [3, 2, 1 << 40], "token counts"),
}


@pytest.mark.parametrize("damage", JSON_DAMAGE)
def test_json_that_does_not_fit(folder: Path, damage: str) -> None:
    name, change, message = JSON_DAMAGE[damage]
    if isinstance(change, dict) and change:
        change_json(folder / name, **change)
    else:
        write_json(folder / name, change)
    with pytest.raises(IndexFormatError, match=message) as refused:
        open_colbert_ai(folder)
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize("name", ["metadata.json", "0.metadata.json", "doclens.1.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"a": 1, "a": 2}', b"[" + b"1" * 5000])
def test_json_files_that_are_none(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(IndexFormatError, match=f"{name} (is damaged|holds)"):
        open_colbert_ai(folder)


TENSOR_DAMAGE: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "NaN centroids": ("centroids.pt", lambda t: t.where(t < 1, torch.tensor(float("nan"))), "NaN"),
    "no centroids": ("centroids.pt", lambda t: t[:0], "centroids"),
    "flat centroids": ("centroids.pt", lambda t: t.flatten(), r"expected float16 or float32 of \(centroids, 32\)"),
    "double centroids": ("centroids.pt", lambda t: t.double(), "DoubleStorage"),
    "bfloat16 centroids": ("centroids.pt", lambda t: t.bfloat16(), "BFloat16Storage"),
    "centroids turned round": ("centroids.pt", lambda t: t.T.contiguous().T, "strides"),
    "two centroid tensors": ("centroids.pt", lambda t: (t, t), "holds a tuple"),
    "a number for centroids": ("centroids.pt", lambda t: 3, "holds a int"),
    "a dictionary": ("centroids.pt", lambda t: {"weight": t}, "EMPTY_DICT"),
    "a parameter": ("centroids.pt", lambda t: torch.nn.Parameter(t), "_rebuild_parameter"),
    "a sparse tensor": ("centroids.pt", lambda t: t.float().to_sparse(), "torch"),
    "one bucket tensor": ("buckets.pt", lambda pair: pair[0], "pair"),
    "three bucket tensors": ("buckets.pt", lambda pair: (*pair, pair[0]), "pair"),
    "buckets the other way": ("buckets.pt", lambda pair: pair[::-1], "cutoffs"),
    "descending cutoffs": ("buckets.pt", lambda pair: (pair[0].flip(0), pair[1]), "descends"),
    "infinite weights": ("buckets.pt", lambda pair: (pair[0], pair[1] / 0), "infinite"),
    "two averages": ("avg_residual.pt", lambda t: torch.zeros(2), r"shape \(2,\)"),
    "NaN average": ("avg_residual.pt", lambda t: t * float("nan"), "NaN"),
    "a code past the centroids": ("1.codes.pt", lambda t: t.clamp(min=CENTROIDS), "expected 0 to 5"),
    "a negative code": ("1.codes.pt", lambda t: t - 100, "expected 0 to 5"),
    "codes of another kind": ("1.codes.pt", lambda t: t.long(), "expected int32"),
    "a code too few": ("1.codes.pt", lambda t: t[1:], "1.residuals.pt is uint8 of shape"),
    "residuals of another width": ("1.residuals.pt", lambda t: t[:, 1:].contiguous(), r"expected uint8 of \(6, 8\)"),
    "residuals of another kind": ("1.residuals.pt", lambda t: t.int(), "expected uint8"),
    "residuals of one chunk twice": ("1.residuals.pt", lambda t: torch.cat([t, t]), r"shape \(12, 8\)"),
}


@pytest.mark.parametrize("damage", TENSOR_DAMAGE)
def test_tensors_that_do_not_fit(folder: Path, damage: str) -> None:
    name, change, message = TENSOR_DAMAGE[damage]
    torch.save(change(arrays()[name]), folder / name)
    with pytest.raises(IndexFormatError, match=message) as refused:
        read_all(folder)
    assert str(folder / name) in str(refused.value) or "residuals" in str(refused.value)


def test_tokens_fewer_than_the_lengths_say(folder: Path) -> None:
    for name in ("1.codes.pt", "1.residuals.pt"):
        torch.save(arrays()[name][1:], folder / name)
    with pytest.raises(IndexFormatError, match=r"1\.codes\.pt holds 5 tokens; expected 6"):
        read_all(folder)


def test_every_file_is_needed(folder: Path) -> None:
    optional = {"collection.json"}
    for file in sorted(folder.iterdir()):
        if file.name not in optional:
            content = file.read_bytes()
            file.unlink()
            with pytest.raises(IndexFormatError, match=file.name):
                open_colbert_ai(folder)
            file.write_bytes(content)
    read_all(folder)


class Payload:
    """Object that creates the file `trace` when it is really unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


def replace_pickle(path: Path, pickled: bytes, **members: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        kept = {info.filename: archive.read(info) for info in archive.infolist()}
    (name,) = (name for name in kept if name.endswith("/data.pkl"))
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**kept, name: pickled, **members}.items():
            archive.writestr(member, content)


@pytest.mark.parametrize("name", ["centroids.pt", "buckets.pt", "avg_residual.pt", "1.codes.pt", "0.residuals.pt"])
@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_pickle_does_not_run(folder: Path, tmp_path: Path, name: str, protocol: int) -> None:
    trace = tmp_path / "trace"
    replace_pickle(folder / name, pickle.dumps(Payload(trace), protocol))
    with pytest.raises(IndexFormatError, match=rf"{name} is refused: its pickle names (posix|nt)\.system"):
        read_all(folder)
    (folder / name).write_bytes(pickle.dumps(Payload(trace), protocol))
    with pytest.raises(IndexFormatError, match=f"{name} is damaged"):
        read_all(folder)
    assert not trace.exists()


def described(key: str = "0", length: int = 1, size: str = "K\x01", storage: str = "FloatStorage") -> bytes:
    """Return the pickle of one tensor as torch.save writes it, with the arguments changed."""
    text = f"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n{storage}\n".encode("latin1")
    text += b"X" + len(key).to_bytes(4, "little") + key.encode() + b"X\x03\x00\x00\x00cpu"
    text += b"J" + length.to_bytes(4, "little", signed=True) + b"tQK\x00" + size.encode("latin1") + b"\x85K\x01\x85\x89"
    return text + b"ccollections\nOrderedDict\n)RtR."


def test_the_pickle_by_hand_is_one_that_opens(folder: Path) -> None:
    replace_pickle(folder / "avg_residual.pt", described())
    assert open_colbert_ai(folder).codec.avg_residual == 0.125


@pytest.mark.parametrize(
    "pickled",
    [
        described(key="../../data/0"),
        described(key="/etc/passwd"),
        described(key="17"),
        described(length=2),
        described(length=-1),
        described(size="K\x02"),
        described(size="J\xff\xff\xff\xff"),
        described(size="\x89"),
        described(storage="UntypedStorage"),
        b"\x80\x02K\x01r\xff\xff\xff\x7f.",
        b"\x80\x02}.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ccollections\nOrderedDict\n.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"",
    ],
)
def test_odd_descriptions_of_tensors(folder: Path, pickled: bytes) -> None:
    replace_pickle(folder / "avg_residual.pt", pickled)
    with pytest.raises(IndexFormatError, match=r"avg_residual\.pt"):
        open_colbert_ai(folder)


def doubled(levels: int = 100) -> bytes:
    """Return opcodes that push a tuple of 2^100 leaves in 500 bytes: each level doubles the one before."""
    pushed = b"X\x01\x00\x00\x00aq\x00"
    for level in range(1, levels + 1):
        pushed += b"h" + bytes([level - 1]) + b"\x86q" + bytes([level])
    return pushed


TENSOR = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
BOMBS = {
    "described": b"\x80\x02(" + doubled() + b"K\x01K\x01K\x01K\x01tQ.",
    "hashed": b"\x80\x02ccollections\nOrderedDict\n](" + doubled() + b"K\x01\x86e\x85R.",
    "as a storage": TENSOR + b"(" + doubled() + b"K\x00))tR.",
    "as an offset": TENSOR + b"(" + STORAGE + doubled() + b"))tR.",
    "as a size": TENSOR + b"(" + STORAGE + b"K\x00" + doubled() + b")tR.",
    "as a storage's number": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + doubled() + b"K\x01K\x01tQ.",
    "in the place of a tensor": b"\x80\x02" + doubled() + b".",
    "of many dimensions": TENSOR + b"(" + STORAGE + b"K\x00(" + b"J\xff\xff\xff\x7f" * 12_000 + b"t(t)tR.",
    "of very large numbers": TENSOR + b"(" + STORAGE + b"K\x00\x8a\xff" + b"\x7f" * 255 + b"\x85K\x01\x85tR.",
    "nested deep": b"\x80\x02K\x01" + b"\x85" * 60_000 + b"Q.",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_pickle_of_a_huge_value_costs_nothing(folder: Path, kind: str) -> None:
    """Hashing, comparing or printing such a value would never end."""
    replace_pickle(folder / "avg_residual.pt", BOMBS[kind])
    with pytest.raises(IndexFormatError, match=r"avg_residual\.pt") as refused:
        open_colbert_ai(folder)
    assert len(str(refused.value)) < 1000


def test_a_storage_is_read_once_however_often_it_is_named(folder: Path) -> None:
    replace_pickle(folder / "avg_residual.pt", b"\x80\x02" + STORAGE * 900 + described()[2:])
    assert open_colbert_ai(folder).codec.avg_residual == 0.125
    others = b"".join(STORAGE.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x00%d" % n) for n in range(10))
    members = {f"avg_residual/data/{number}": bytes(4) for number in range(10)}
    replace_pickle(folder / "avg_residual.pt", b"\x80\x02" + others + described()[2:], **members)
    with pytest.raises(IndexFormatError, match="more than 8 storages"):
        open_colbert_ai(folder)


def test_random_pickles_are_refused_or_harmless(folder: Path) -> None:
    drawn = random.Random(5)
    pieces = [doubled(), STORAGE, TENSOR[2:], b"ccollections\nOrderedDict\n", b"K\x01", b"K\x00", b"(", b")", b"]"]
    pieces += [b"R", b"t", b"\x85", b"\x86", b"\x87", b"Q", b"a", b"e", b"q\x07", b"h\x07", b"h\x00", b"\x88"]
    for _ in range(100):
        pickled = b"\x80\x02" + b"".join(drawn.choices(pieces, k=drawn.randrange(1, 12))) + b"."
        replace_pickle(folder / "avg_residual.pt", pickled)
        with contextlib.suppress(IndexFormatError):
            open_colbert_ai(folder)


def test_a_key_that_stands_twice_among_many_is_found_at_once(folder: Path) -> None:
    """Comparing each key with all others took minutes."""
    keys = ",".join(f'"k{number}":0' for number in range(200_000))
    (folder / "metadata.json").write_text("{" + keys + ',"k199999":0}')
    with pytest.raises(IndexFormatError, match="'k199999' stands twice"):
        open_colbert_ai(folder)


def test_settings_of_a_size_that_nobody_writes(folder: Path) -> None:
    os.truncate(folder / "metadata.json", 1 << 40)
    with pytest.raises(IndexFormatError, match="expected at most 16777216"):
        open_colbert_ai(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["centroids.pt", "metadata.json", "doclens.0.json"])
def test_a_pipe_is_no_file_to_wait_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(IndexFormatError):
        open_colbert_ai(folder)


def test_values_of_any_length_are_cut_in_messages(folder: Path) -> None:
    metadata = json.loads((folder / "metadata.json").read_text())
    for change in (
        {"config": ["x" * 1_000_000] * 9},
        {"num_chunks": "y" * 1_000_000},
        {"num_partitions": ["z"] * 99_999},
    ):
        (folder / "metadata.json").write_text(json.dumps({**metadata, **change}))
        with pytest.raises(IndexFormatError) as refused:
            open_colbert_ai(folder)
        assert len(str(refused.value)) < 1000


def test_zips_that_torch_does_not_write(folder: Path) -> None:
    path = folder / "avg_residual.pt"
    sound = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(IndexFormatError, match="compressed"):
        open_colbert_ai(folder)
    path.write_bytes(sound)
    replace_pickle(path, described(), **{"avg_residual/byteorder": b"big"})
    with pytest.raises(IndexFormatError, match="byte order"):
        open_colbert_ai(folder)
    path.write_bytes(sound)
    replace_pickle(path, described(), **{"other/data.pkl": described()})
    with pytest.raises(IndexFormatError, match=r"2 members named data\.pkl"):
        open_colbert_ai(folder)
    torch.save(torch.tensor([0.125]), path, _use_new_zipfile_serialization=False)
    with pytest.raises(IndexFormatError, match=r"PyTorch 1\.6 or later"):
        open_colbert_ai(folder)


@pytest.mark.slow
def test_flipped_bits_and_cut_ends_are_noticed_or_harmless(folder: Path) -> None:
    rng = np.random.default_rng(3)
    expected = arrays()
    for file in sorted(folder.glob("*.pt")):
        content = file.read_bytes()
        for _ in range(60):
            if rng.random() < 0.3:
                damaged = content[: rng.integers(len(content))]
            else:
                changed = bytearray(content)
                changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
                damaged = bytes(changed)
            file.write_bytes(damaged)
            try:
                index = open_colbert_ai(folder)
                chunks = list(index.chunks())
            except IndexFormatError:
                continue
            # The change was in what nobody reads: padding, dates, the name of a device.
            np.testing.assert_array_equal(index.codec.centroids, expected["centroids.pt"].float().numpy())
            np.testing.assert_array_equal(index.codec.bucket_weights, expected["buckets.pt"][1].numpy())
            for number, chunk in enumerate(chunks):
                np.testing.assert_array_equal(chunk.codes, expected[f"{number}.codes.pt"].numpy())
                np.testing.assert_array_equal(chunk.residuals, expected[f"{number}.residuals.pt"].numpy())
        file.write_bytes(content)


@pytest.mark.parametrize("path", ["", "a\0b", None, 3])
def test_paths_that_are_none(path: Any) -> None:
    with pytest.raises(InvalidInputError, match="index path"):
        open_colbert_ai(path)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=r"not a colbert-ai index: it holds no metadata\.json"):
        open_colbert_ai(tmp_path)


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def test_packing_and_the_codebook_are_each_others_inverse(nbits: int) -> None:
    levels = np.random.default_rng(nbits).integers(0, 1 << nbits, (50, 64), dtype=np.uint8)
    weights = np.random.default_rng(0).standard_normal(1 << nbits).astype(np.float32)
    packed = pack(levels, nbits)
    assert (packed.dtype, packed.shape) == (np.uint8, (50, 8 * nbits))
    np.testing.assert_array_equal(codebook(weights, nbits)[packed].reshape(50, 64), weights[levels])


def test_packing_refuses_what_it_cannot_pack() -> None:
    for levels in (np.zeros((2, 6), np.uint8), np.zeros((2, 8), np.int64), np.zeros(8, np.uint8)):
        with pytest.raises(InvalidInputError, match="bucket numbers"):
            pack(levels, 2)
    with pytest.raises(InvalidInputError, match="expected less than 4"):
        pack(np.full((2, 8), 4, np.uint8), 2)
    with pytest.raises(InvalidInputError, match="nbits is 3"):
        pack(np.zeros((2, 8), np.uint8), 3)


def test_quantile_buckets_of_known_values() -> None:
    cutoffs, weights = quantile_buckets(np.arange(101, dtype=np.float32)[::-1].reshape(1, 101), 2)
    np.testing.assert_allclose(cutoffs, [25, 50, 75])
    np.testing.assert_allclose(weights, [12.5, 37.5, 62.5, 87.5])
    for sample in (np.zeros((0, 8), np.float32), np.array([np.nan], np.float32)):
        with pytest.raises(InvalidInputError, match="residual sample"):
            quantile_buckets(sample, 2)
