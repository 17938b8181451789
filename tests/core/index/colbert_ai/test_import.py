"""Imports of index folders in colbert-ai's format, compared with NumPy's MaxSim over its decompression."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colbert_ai_folders import DIM, TEXTS, change_json, decompress, write_folder, write_json
from damaged_index import answers as answers_of
from damaged_index import check_unharmed, make_two_segments
from numpy.typing import NDArray
from toy import ToyEncoder, child_env

from rerank_integrations import (
    ColBERTIndex,
    IndexExistsError,
    IndexFormatError,
    IndexLockedError,
    InvalidInputError,
    ModelMismatchError,
    Passage,
    RerankError,
    export_colbert,
    import_colbert,
)
from rerank_integrations.core.index.colbert_ai import (
    ColbertAICodec,
    ColbertAIWriter,
    codebook,
    open_colbert_ai,
    quantile_buckets,
)

QUERIES = ("red fox", "one two three four five", "a", " ".join(f"w{number}" for number in range(40)))


def naive_scores(source: Path, query: NDArray[np.float32]) -> list[float]:
    """Return MaxSim of every passage number; a passage without tokens gets -1 per query token."""
    theirs = open_colbert_ai(source)
    book = codebook(theirs.codec.bucket_weights, theirs.codec.nbits)
    scores = []
    for chunk in theirs.chunks():
        vectors = decompress(chunk.codes, chunk.residuals, theirs.codec.centroids, book)
        passages = np.split(vectors, np.cumsum(chunk.lengths)[:-1])
        scores += [float((query @ passage.T).max(axis=1, initial=-1).sum()) for passage in passages]
    return scores


def check_scores(index: ColBERTIndex, source: Path, pid_of: dict[str, int]) -> None:
    for query in QUERIES:
        (vectors,) = ToyEncoder(dim=index.model.dim).encode_queries([query])
        expected = naive_scores(source, vectors)
        for exact in (True, False):
            hits = index.search(query, 100, exact=exact)
            assert {hit.id for hit in hits} == set(pid_of)
            np.testing.assert_allclose(
                [hit.score for hit in hits], [expected[pid_of[hit.id]] for hit in hits], atol=1e-4
            )


def make_source(path: Path, nbits: int, lengths: list[int], dim: int = 64, centroids: int = 9) -> Path:
    """Write a folder with RAGatouille's files and random tokens."""
    rng = np.random.default_rng(nbits)
    rows = rng.standard_normal((centroids, dim)).astype(np.float32)
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    cutoffs, weights = quantile_buckets(rng.standard_normal((50, dim)).astype(np.float32) * 0.05, nbits)
    with ColbertAIWriter(path, ColbertAICodec(nbits, unit, weights, cutoffs, 0.04), "some/model") as writer:
        for first in range(0, len(lengths), 5):
            part = np.array(lengths[first : first + 5], dtype=np.int32)
            tokens = int(part.sum())
            passages = [Passage(f"doc {pid}", f"text {pid}", {"pid": pid}) for pid in range(first, first + len(part))]
            codes = rng.integers(0, centroids, tokens, dtype=np.int32)
            residuals = rng.integers(0, 256, (tokens, dim * nbits // 8), dtype=np.uint8)
            writer.add(codes, residuals, part, passages)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "theirs")


def test_an_imported_index_scores_as_colbert_ai_decompresses(source: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    with import_colbert(source, tmp_path / "new" / "ours", ToyEncoder(dim=DIM)) as index:
        assert index.path == tmp_path / "new" / "ours"
        check_scores(index, source, {str(pid): pid for pid in range(5)})
        assert index.get(["3"]) == [Passage("3", TEXTS[3], {})]
        stats = index.stats()
        assert (stats.kind, stats.nbits, stats.passages, stats.tokens, stats.dim) == ("plaid", 2, 5, 15, DIM)
        assert index.verify().tokens == 15
    with ColBERTIndex.open(tmp_path / "new" / "ours", ToyEncoder(dim=DIM), read_only=True) as again:
        check_scores(again, source, {str(pid): pid for pid in range(5)})
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


@pytest.mark.parametrize("nbits", [2, *(pytest.param(nbits, marks=pytest.mark.slow) for nbits in (1, 4, 8))])
def test_every_number_of_bits_with_what_ragatouille_keeps(tmp_path: Path, nbits: int) -> None:
    lengths = [3, 0, 7, 1, 2, 9, 4]
    source = make_source(tmp_path / "theirs", nbits, lengths)
    with import_colbert(str(source), str(tmp_path / "ours"), ToyEncoder(dim=64), show_progress=False) as index:
        check_scores(index, source, {f"doc {pid}": pid for pid in range(7)})
        assert index.stats().nbits == nbits
        assert [hit.id for hit in index.search("red fox", 9, where={"pid": {"$gt": 4}})] != []
        assert index.get(["doc 1", "doc 6"]) == [Passage(f"doc {pid}", f"text {pid}", {"pid": pid}) for pid in (1, 6)]
        hits = index.rerank("red fox", ["doc 5", "doc 2"])
        assert [hit.score for hit in hits] == [
            hit.score for hit in index.search("red fox", 9, exact=True) if hit.id in ("doc 5", "doc 2")
        ]


def test_removed_passages_are_left_out_and_numbers_stay(tmp_path: Path) -> None:
    source = make_source(tmp_path / "theirs", 2, [3, 0, 2, 4, 1, 0, 0, 5])
    for name in ("pid_docid_map.json", "docid_metadata_map.json"):
        (source / name).unlink()
    with import_colbert(source, tmp_path / "ours", ToyEncoder(dim=64)) as index:
        check_scores(index, source, {str(pid): pid for pid in (0, 2, 3, 4, 7)})
        assert [passage.text for passage in index.get(["1", "2", "7"])] == ["text 2", "text 7"]


def test_a_collection_from_elsewhere(source: Path, tmp_path: Path) -> None:
    (source / "collection.json").unlink()
    path = tmp_path / "collection.tsv"
    path.write_text("".join(f"{pid}\tanother text {pid}\n" for pid in range(5)), encoding="utf-8")
    with import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM), collection=path) as index:
        assert [passage.text for passage in index.get(["0", "4"])] == ["another text 0", "another text 4"]


def test_more_tokens_than_a_segment_holds(tmp_path: Path) -> None:
    lengths = [700_000, 300_000, 1, 2, 400_000, 900_000, 3]
    source = make_source(tmp_path / "theirs", 2, lengths, dim=16)
    with import_colbert(source, tmp_path / "ours", ToyEncoder(dim=16)) as index:
        assert index.stats().segments == 2
        assert index.verify().tokens == sum(lengths)
        (query,) = ToyEncoder(dim=16).encode_queries(["red fox"])
        theirs = open_colbert_ai(source)
        codes, residuals = (
            np.concatenate([getattr(c, name) for c in theirs.chunks()]) for name in ("codes", "residuals")
        )
        ends = np.cumsum(lengths)
        book = codebook(theirs.codec.bucket_weights, 2)
        for pid in (2, 3, 6):
            rows = slice(ends[pid] - lengths[pid], ends[pid])
            vectors = decompress(codes[rows], residuals[rows], theirs.codec.centroids, book)
            (hit,) = index.rerank("red fox", [f"doc {pid}"])
            assert hit.score == pytest.approx((query @ vectors.T).max(axis=1).sum(), abs=1e-4)


WORDS = ("red", "green", "blue", "fox", "frog", "whale", "old", "young")
ANIMALS = [
    Passage(f"{first} {second} {third}", f"{first} {second} {third}", {"n": place})
    for place, (first, second, third) in enumerate((a, b, c) for a in WORDS for b in WORDS for c in WORDS)
]


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export an index whose codec fits the vectors of `ToyEncoder`."""
    folder = tmp_path_factory.mktemp("animals")
    with ColBERTIndex.create(folder / "exact", ToyEncoder(dim=32)) as index:
        index.upsert(ANIMALS)
        return export_colbert(index, folder / "theirs")


@pytest.mark.slow
def test_an_imported_index_changes_as_any_other(animals: Path, tmp_path: Path) -> None:
    with import_colbert(animals, tmp_path / "ours", ToyEncoder(dim=32)) as index:
        (first,) = index.search("blue whale fox", 1)
        assert {*first.id.split()} == {"blue", "whale", "fox"}
        assert first.score == pytest.approx(3, abs=0.01)
        index.upsert([Passage("new", "old old whale", {"n": -1}), Passage("red red red", "young frog", {"n": -2})])
        assert index.stats().kind == "plaid"
        found = {hit.id: hit.score for hit in index.search("old whale", 600)}
        assert len(found) == 513
        # The same words were there before, compressed by colbert-ai's own rule.
        assert found["new"] == pytest.approx(found["old old whale"], abs=0.01)
        assert index.get(["red red red"]) == [Passage("red red red", "young frog", {"n": -2})]
        assert [hit.id for hit in index.search("young frog", 1, where={"n": {"$lt": 0}})] == ["red red red"]
        assert index.delete(["new", *(passage.id for passage in ANIMALS[:100])]) == 101
        before = index.search("old whale", 600)
        index.compact()
        assert index.search("old whale", 600) == before
        assert len(before) == 412
        index.verify()


def test_an_imported_index_that_outgrows_its_centroids(source: Path, tmp_path: Path) -> None:
    """Its own 6 centroids do not fit vectors of another kind."""
    with import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM)) as index:
        index.upsert(ANIMALS)
        assert index.stats().centroids > 6
        index.upsert([Passage("new", "old young whale")])
        assert index.search("old young whale", 1, ids=["new"])[0].score == pytest.approx(3, abs=0.05)
        assert len(index.search("old", 600)) == 518
        index.verify()


def _remove(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def _save(name: str, value: Any) -> Callable[[Path], Any]:
    return lambda folder: torch.save(value, folder / name)


BAD: dict[str, tuple[Callable[[Path], Any], type[RerankError], str]] = {
    "no index": (_remove("metadata.json"), IndexFormatError, "is not a colbert-ai index"),
    "a chunk is missing": (_remove("1.residuals.pt"), IndexFormatError, "1.residuals.pt is missing"),
    "no texts": (_remove("collection.json"), InvalidInputError, "pass the collection"),
    "a text too few": (
        lambda folder: write_json(folder / "collection.json", TEXTS[:-1]),
        IndexFormatError,
        "holds 4 passages",
    ),
    "a code past the centroids, in the last chunk": (
        _save("1.codes.pt", torch.full((6,), 6, dtype=torch.int32)),
        IndexFormatError,
        "expected 0 to 5",
    ),
    "centroids that float16 does not hold": (
        _save("centroids.pt", torch.full((6, DIM), 1e6)),
        IndexFormatError,
        "float16",
    ),
    "an id of NUL": (
        lambda folder: write_json(folder / "pid_docid_map.json", {str(pid): f"\0{pid}" for pid in range(5)}),
        IndexFormatError,
        "NUL",
    ),
}


@pytest.mark.parametrize("damage", BAD)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_bad_source_leaves_nothing(source: Path, tmp_path: Path, damage: str, overwrite: bool) -> None:
    spoil, error, message = BAD[damage]
    spoil(source)
    with pytest.raises(error, match=message):
        import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM), overwrite=overwrite)
    assert {path.name for path in tmp_path.iterdir()} == {"theirs"}


@pytest.mark.parametrize("damage", BAD)
def test_a_bad_source_overwrites_nothing(source: Path, tmp_path: Path, damage: str) -> None:
    BAD[damage][0](source)
    make_two_segments(tmp_path / "ours")
    with ColBERTIndex.open(tmp_path / "ours", ToyEncoder()) as index:
        before = answers_of(index)
    with pytest.raises(BAD[damage][1]):
        import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM), overwrite=True)
    check_unharmed(ColBERTIndex.open(tmp_path / "ours", ToyEncoder()), before)


def test_the_model_must_have_the_dimensions_of_the_vectors(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelMismatchError, match=r"32 dimensions.*'some/model'.*'toy' makes vectors of 16"):
        import_colbert(source, tmp_path / "ours", ToyEncoder())
    assert not (tmp_path / "ours").exists()


def test_more_centroids_than_codes_can_name(source: Path, tmp_path: Path) -> None:
    torch.save(torch.zeros((65_537, DIM), dtype=torch.float16), source / "centroids.pt")
    change_json(source / "metadata.json", num_partitions=65_537)
    with pytest.raises(IndexFormatError, match="has 65537 centroids; expected at most 65536"):
        import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM))


def test_no_tokens_at_all(source: Path, tmp_path: Path) -> None:
    (source / "1.codes.pt").unlink()
    (source / "1.residuals.pt").unlink()
    write_json(source / "doclens.0.json", [0, 0, 0])
    change_json(source / "0.metadata.json", num_embeddings=0)
    change_json(source / "metadata.json", num_chunks=1, num_embeddings=0)
    write_json(source / "collection.json", TEXTS[:3])
    with pytest.raises(IndexFormatError, match="holds no tokens"):
        import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM))


def test_what_stands_there(source: Path, tmp_path: Path) -> None:
    make_two_segments(tmp_path / "ours")
    with pytest.raises(IndexExistsError, match="overwrite=True"):
        import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM))
    with pytest.raises(IndexFormatError, match="no index"):
        import_colbert(source, source, ToyEncoder(dim=DIM), overwrite=True)
    with ColBERTIndex.open(tmp_path / "ours", ToyEncoder()) as index:
        before = answers_of(index)
        with pytest.raises(IndexLockedError):
            import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM), overwrite=True)
        assert answers_of(index) == before
    import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM), overwrite=True).close()
    with ColBERTIndex.open(tmp_path / "ours", ToyEncoder(dim=DIM)) as index:
        check_scores(index, source, {str(pid): pid for pid in range(5)})
        index.verify()
        assert len(list((index.path / "segments").iterdir())) == 1


def test_a_reader_sees_the_import_that_overwrites(source: Path, tmp_path: Path) -> None:
    with ColBERTIndex.create(tmp_path / "ours", ToyEncoder(dim=DIM)) as old:
        old.upsert(["an old text"])
    with ColBERTIndex.open(tmp_path / "ours", ToyEncoder(dim=DIM), read_only=True) as reader:
        assert [hit.text for hit in reader.search("old")] == ["an old text"]
        import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM), overwrite=True).close()
        check_scores(reader, source, {str(pid): pid for pid in range(5)})


IMPORT = """
import resource, signal, sys
from toy import ToyEncoder
from rerank_integrations import IndexWriteError, import_colbert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    import_colbert(sys.argv[1], sys.argv[2], ToyEncoder(dim=64), overwrite=True)
except IndexWriteError as error:
    print(error)
"""


# The first file over it: a codec's, a segment's, the catalog. Below 33,000 SQLite cannot even read.
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not limit the size of files")
@pytest.mark.slow
@pytest.mark.parametrize("size", [40_000, 60_000, 110_000])
def test_a_full_disk_leaves_the_old_index_or_none(tmp_path: Path, size: int) -> None:
    """This runs in its own process, because the cache of compiled kernels is written too."""
    source = make_source(tmp_path / "theirs", 8, [150, 200, 400, 500, 150, 100], centroids=400)
    write_json(source / "collection.json", [f"text {pid} " + "word " * 40_000 for pid in range(6)])
    with ColBERTIndex.create(tmp_path / "old", ToyEncoder(dim=64)) as old:
        old.upsert(["an old text"])
    with import_colbert(source, tmp_path / "sound", ToyEncoder(dim=64)) as sound:
        sizes = {path.name: path.stat().st_size for path in sound.path.rglob("*.*")}
    assert 40_000 < sizes["centroids.npy"] < 60_000 < sizes["residuals.npy"] < 110_000
    for name in ("old", "none"):
        command = [sys.executable, "-c", IMPORT, str(source), str(tmp_path / name), str(size)]
        ran = subprocess.run(command, capture_output=True, text=True, env=child_env(), check=False)
        assert ran.returncode == 0, ran.stderr
        assert "cannot" in ran.stdout
    with ColBERTIndex.open(tmp_path / "old", ToyEncoder(dim=64)) as old:
        assert [hit.text for hit in old.search("old")] == ["an old text"]
        old.verify()
        assert len(list((old.path / "segments").iterdir())) == 1
    for folder in ("segments", "codecs"):
        assert not list((tmp_path / "none").glob(f"{folder}/*"))
    with import_colbert(source, tmp_path / "none", ToyEncoder(dim=64)) as index:
        assert index.verify().passages == 6


KILLING = """
import shutil, sys
from pathlib import Path
import killed_writers
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex, IndexFormatError, import_colbert

folder, old, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
model = ToyEncoder(dim=32)
# Loads the kernels before the children, which are many.
import_colbert(folder / "theirs", folder / "warm", model).close()
killed = {"old": 0, "new": 0, "none": 0}
line, end = 1, 0
while not end:
    target = folder / "target"
    if line % 2:
        shutil.copytree(old, target)
    action = lambda done: import_colbert(folder / "theirs", target, model, overwrite=True).close()
    _, end = killed_writers.die_at_line(line, action, again=False)
    try:
        index = ColBERTIndex.open(target, model)
    except IndexFormatError as error:
        assert not line % 2 and "not an index" in str(error), (line, error)
        killed["none"] += 1
        index = import_colbert(folder / "theirs", target, model)
    with index:
        texts = [passage.text for passage in index.get(["old", *"01234"])]
        whole = texts == [f"text of passage {pid}" for pid in range(5)]
        assert whole or (line % 2 and texts == ["an old text"]), (line, texts)
        killed["new" if whole else "old"] += 1
        index.verify()
        assert len(list((index.path / "segments").iterdir())) == 1, line
    shutil.rmtree(target)
    line += step
print(killed["old"], killed["new"], killed["none"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither SIGKILL nor fork")
@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 31])
def test_killed_at_any_line_the_old_index_stands_or_the_new_one(source: Path, tmp_path: Path, step: int) -> None:
    with ColBERTIndex.create(tmp_path / "old", ToyEncoder(dim=DIM)) as old:
        old.upsert([Passage("old", "an old text")])
    command = [sys.executable, "-c", KILLING, str(tmp_path), str(tmp_path / "old"), str(step)]
    ran = subprocess.run(command, capture_output=True, text=True, env=child_env(), check=False)
    assert ran.returncode == 0, ran.stderr
    assert all(int(count) > 0 for count in ran.stdout.split()), ran.stdout


def test_the_log_names_the_checkpoint(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "rerank_integrations"):
        import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM)).close()
    assert "made with the checkpoint 'some/model'; importing it for 'toy'" in caplog.text


def test_importing_needs_no_torch(source: Path, tmp_path: Path) -> None:
    code = f"""
import sys, json
from toy import ToyEncoder
from rerank_integrations import import_colbert
before = sorted({{"torch", "numba", "faiss"}} & set(sys.modules))
import_colbert({str(source)!r}, {str(tmp_path / "ours")!r}, ToyEncoder(dim={DIM})).close()
print(json.dumps([before, "torch" in sys.modules]))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_env(), check=True)
    assert json.loads(ran.stdout) == [[], False]
