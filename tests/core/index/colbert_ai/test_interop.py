"""colbert-ai's own indexer, codec and scorer, compared with this package's reading and writing of its folders."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colbert_ai_folders import decompress
from numpy.typing import NDArray

from rerank_integrations import ColBERTIndex, Passage, export_colbert, import_colbert
from rerank_integrations.core.index.colbert_ai import (
    ColbertAIIndex,
    ColbertAIWriter,
    codebook,
    open_colbert_ai,
    pack,
    quantile_buckets,
    read_collection,
)

pytestmark = [
    pytest.mark.colbert_ai,
    pytest.mark.skipif(
        importlib.util.find_spec("colbert") is None,
        reason="colbert-ai is absent, so its index format is NOT tested against it: pip install '.[colbert-ai]'",
    ),
    pytest.mark.filterwarnings("ignore:.*(GradScaler|autocast|CUDA is not available|TORCH_CUDA_ARCH_LIST)"),
]

DIM = 64
PASSAGES = 240
CHUNK = 100
PARTITIONS = 64
NBITS = (1, 2, 4, 8)
TEXTS = [f"passage {pid} ünïcode" for pid in range(PASSAGES)]


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_vectors() -> tuple[NDArray[np.float32], list[int]]:
    """Return clustered token vectors, and the number of tokens per passage."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(3, 20, PASSAGES).tolist()
    topics = unit(rng.standard_normal((40, DIM)))
    tokens = topics[rng.integers(0, 40, sum(lengths))] + rng.standard_normal((sum(lengths), DIM)) * 0.08
    return unit(tokens), lengths


def make_centroids(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return centroids of a few rounds of k-means; colbert-ai's own needs faiss."""
    centroids = vectors[:: len(vectors) // PARTITIONS][:PARTITIONS]
    for _ in range(4):
        nearest = (vectors @ centroids.T).argmax(axis=1)
        # Each one's old place keeps it from being empty.
        centroids = unit(np.array([vectors[nearest == k].sum(axis=0) + old for k, old in enumerate(centroids)]))
    return centroids


def make_queries() -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(6)
    vectors, _ = make_vectors()
    return [unit(vectors[rng.integers(0, len(vectors), 8)] + rng.standard_normal((8, DIM)) * 0.1) for _ in range(12)]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Path]]:
    """Index the vectors with colbert-ai's ``CollectionIndexer``; only encoder and k-means are replaced."""
    from colbert.indexing.codecs.residual import ResidualCodec
    from colbert.indexing.collection_indexer import CollectionIndexer
    from colbert.indexing.index_saver import IndexSaver
    from colbert.infra import ColBERTConfig

    made: dict[int, Path] = {}

    def built(nbits: int) -> Path:
        if nbits in made:
            return made[nbits]
        path = tmp_path_factory.mktemp("colbert-ai") / f"bits{nbits}"
        path.mkdir()
        vectors, lengths = make_vectors()
        indexer = CollectionIndexer.__new__(CollectionIndexer)
        indexer.config = ColBERTConfig(
            dim=DIM, nbits=nbits, index_path=str(path), rank=0, nranks=1, checkpoint="some/model"
        )
        indexer.rank, indexer.use_gpu, indexer.verbose, indexer.collection = 0, False, 0, TEXTS
        indexer.saver = IndexSaver(indexer.config)
        indexer.num_partitions, indexer.num_chunks = PARTITIONS, -(-PASSAGES // CHUNK)
        indexer.num_embeddings_est, indexer.avg_doclen_est = float(len(vectors)), len(vectors) / PASSAGES
        indexer._save_plan()
        sample = torch.from_numpy(vectors)
        centroids = torch.from_numpy(make_centroids(vectors[200:]))
        cutoffs, weights, average = indexer._compute_avg_residual(centroids, sample[:200])
        indexer.saver.save_codec(ResidualCodec(indexer.config, centroids, average, cutoffs, weights))
        with indexer.saver.thread():
            start = 0
            for number, first in enumerate(range(0, PASSAGES, CHUNK)):
                doclens = lengths[first : first + CHUNK]
                embeddings = sample[start : start + sum(doclens)].half()
                indexer.saver.save_chunk(number, first, embeddings, doclens)
                start += sum(doclens)
        indexer.finalize()
        return made.setdefault(nbits, path)

    yield built


@pytest.fixture(scope="module")
def scorer() -> Callable[[Path], Any]:
    """Open a folder in colbert-ai's ``IndexScorer`` on the CPU; compiles its C++ the first time."""
    from colbert.modeling.colbert import ColBERT
    from colbert.search.index_storage import IndexScorer

    # Its Checkpoint would, with the scoring of packed vectors.
    ColBERT.try_load_torch_extensions(use_gpu=False)
    return lambda path: IndexScorer(str(path), use_gpu=False)


def ranked(scorer: Any, query: NDArray[np.float32], **settings: Any) -> tuple[list[int], list[float]]:
    from colbert.infra import ColBERTConfig

    return scorer.rank(ColBERTConfig(dim=DIM, query_maxlen=32, **settings), torch.from_numpy(query)[None])


def tokens(index: ColbertAIIndex) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return all codes, residuals and lengths of an index."""
    chunks = list(index.chunks())
    return tuple(np.concatenate([getattr(c, name) for c in chunks]) for name in ("codes", "residuals", "lengths"))


def vectors_of(index: ColbertAIIndex) -> NDArray[np.float32]:
    codes, residuals, _ = tokens(index)
    return decompress(codes, residuals, index.codec.centroids, codebook(index.codec.bucket_weights, index.codec.nbits))


def naive_scores(index: ColbertAIIndex, query: NDArray[np.float32], floor: float = -1) -> NDArray[Any]:
    ends = np.cumsum(np.concatenate(index.lengths))
    passages = np.split(vectors_of(index), ends[:-1])
    return np.array([(query @ passage.T).max(axis=1).clip(floor).sum() for passage in passages])


def export(index: ColbertAIIndex, path: Path, passages_in_chunk: int) -> None:
    """Write an index again, with other chunk boundaries."""
    codes, residuals, lengths = tokens(index)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    with ColbertAIWriter(path, index.codec, index.checkpoint) as writer:
        for first in range(0, len(lengths), passages_in_chunk):
            last = min(first + passages_in_chunk, len(lengths))
            rows = slice(ends[first], ends[last])
            passages = [Passage(f"id{pid}", TEXTS[pid], {"pid": pid}) for pid in range(first, last)]
            writer.add(codes[rows], residuals[rows], lengths[first:last], passages)


@pytest.mark.parametrize("nbits", NBITS)
def test_an_index_of_colbert_ai_opens_and_decompresses_alike(build: Callable[[int], Path], nbits: int) -> None:
    from colbert.indexing.codecs.residual import ResidualCodec
    from colbert.indexing.codecs.residual_embeddings import ResidualEmbeddings

    index = open_colbert_ai(build(nbits))
    index.check_all()
    assert (index.codec.nbits, index.codec.dim, index.num_chunks, index.num_passages) == (nbits, DIM, 3, PASSAGES)
    assert (index.checkpoint, index.num_tokens) == ("some/model", len(make_vectors()[0]))
    codec = ResidualCodec.load(str(index.path))
    chunks = [ResidualEmbeddings.load(str(index.path), number) for number in range(3)]
    expected = np.concatenate([codec.decompress(chunk).numpy() for chunk in chunks])
    np.testing.assert_allclose(vectors_of(index), expected, atol=1e-6)
    np.testing.assert_array_equal(index.codec.bucket_cutoffs, codec.bucket_cutoffs.numpy())
    assert index.codec.avg_residual == pytest.approx(codec.avg_residual)


@pytest.mark.parametrize("nbits", NBITS)
def test_packing_is_colbert_ais_bit_for_bit(build: Callable[[int], Path], nbits: int) -> None:
    from colbert.indexing.codecs.residual import ResidualCodec

    codec = ResidualCodec.load(str(build(nbits)))
    residuals = np.random.default_rng(1).standard_normal((300, DIM)).astype(np.float32) * 0.1
    levels = np.searchsorted(codec.bucket_cutoffs.numpy(), residuals).astype(np.uint8)
    expected = codec.binarize(torch.from_numpy(residuals)).numpy()
    np.testing.assert_array_equal(pack(levels, nbits), expected)
    book = codec.bucket_weights.numpy()[levels]
    np.testing.assert_array_equal(codebook(codec.bucket_weights.numpy(), nbits)[expected].reshape(300, DIM), book)


@pytest.mark.parametrize("nbits", NBITS)
def test_buckets_are_colbert_ais(build: Callable[[int], Path], nbits: int) -> None:
    index = open_colbert_ai(build(nbits))
    heldout = make_vectors()[0][:200]
    # The buckets were made before the centroids were rounded for storing.
    nearest = (heldout @ index.codec.centroids.T).argmax(axis=1)
    cutoffs, weights = quantile_buckets(heldout - index.codec.centroids[nearest], nbits)
    np.testing.assert_allclose(cutoffs, index.codec.bucket_cutoffs, atol=2e-3)
    np.testing.assert_allclose(weights, index.codec.bucket_weights, atol=2e-3)
    values = torch.from_numpy(heldout)
    places = torch.arange(1 << nbits) / (1 << nbits)
    cutoffs, weights = quantile_buckets(heldout, nbits)
    np.testing.assert_allclose(cutoffs, values.quantile(places[1:]).numpy(), atol=1e-6)
    np.testing.assert_allclose(weights, values.quantile(places + 0.5 / (1 << nbits)).numpy(), atol=1e-6)


@pytest.mark.parametrize("nbits", NBITS)
def test_an_exported_index_ranks_as_naive_maxsim(
    build: Callable[[int], Path], scorer: Callable[[Path], Any], tmp_path: Path, nbits: int
) -> None:
    export(open_colbert_ai(build(nbits)), tmp_path / "to", 150)
    written = open_colbert_ai(tmp_path / "to")
    theirs = scorer(tmp_path / "to")
    for query in make_queries():
        expected = naive_scores(written, query)
        everything = {"ncells": PARTITIONS, "centroid_score_threshold": -2.0, "ndocs": 4 * PASSAGES}
        pids, scores = ranked(theirs, query, **everything)
        assert sorted(pids) == list(range(PASSAGES))
        # On the CPU colbert-ai's maxima begin at 0, so a query token that nothing resembles counts as 0.
        np.testing.assert_allclose(scores, naive_scores(written, query, floor=0)[pids], atol=1e-4)
        assert pids[:10] == np.argsort(-expected, kind="stable")[:10].tolist()


@pytest.mark.parametrize("nbits", NBITS)
def test_an_export_answers_as_the_index_it_came_from(
    build: Callable[[int], Path], scorer: Callable[[Path], Any], tmp_path: Path, nbits: int
) -> None:
    """colbert-ai's own settings and the same inverted lists, with any chunk boundaries."""
    index = open_colbert_ai(build(nbits))
    export(index, tmp_path / "to", 70)
    for ours, theirs in zip(
        torch.load(tmp_path / "to" / "ivf.pid.pt"), torch.load(index.path / "ivf.pid.pt"), strict=True
    ):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    before, after = scorer(index.path), scorer(tmp_path / "to")
    for query in make_queries():
        for settings in (
            {"ncells": 1, "centroid_score_threshold": 0.5, "ndocs": 256},
            {"ncells": 2, "centroid_score_threshold": 0.45, "ndocs": 1024},
        ):
            pids, scores = ranked(after, query, **settings)
            assert pids
            assert (pids, scores) == ranked(before, query, **settings)


def test_a_file_of_colbert_ai_and_ours_are_alike(build: Callable[[int], Path], tmp_path: Path) -> None:
    index = open_colbert_ai(build(2))
    export(index, tmp_path / "to", CHUNK)
    names = {path.name for path in index.path.iterdir()}
    texts = {"collection.tsv", "collection.json", "pid_docid_map.json", "docid_metadata_map.json"}
    assert {path.name for path in (tmp_path / "to").iterdir()} == names | texts
    for name in sorted(names):
        if name.endswith(".pt"):
            ours, theirs = (torch.load(folder / name) for folder in (tmp_path / "to", index.path))
            pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
            for our, their in pairs:
                assert our.dtype == their.dtype
                np.testing.assert_array_equal(our.numpy().ravel(), their.numpy().ravel(), err_msg=name)


def test_colbert_ai_reads_the_collection_and_the_settings(build: Callable[[int], Path], tmp_path: Path) -> None:
    from colbert.data import Collection
    from colbert.infra import ColBERTConfig

    index = open_colbert_ai(build(2))
    export(index, tmp_path / "to", CHUNK)
    assert list(Collection(path=str(tmp_path / "to" / "collection.tsv"))) == TEXTS
    config = ColBERTConfig.load_from_index(str(tmp_path / "to"))
    assert (config.dim, config.nbits, config.checkpoint) == (DIM, 2, "some/model")
    expected = [(pid, Passage(f"id{pid}", text, {"pid": pid})) for pid, text in enumerate(TEXTS)]
    assert list(read_collection(open_colbert_ai(tmp_path / "to"))) == expected


def test_tsv_means_to_us_what_it_means_to_colbert_ai(build: Callable[[int], Path], tmp_path: Path) -> None:
    from colbert.data import Collection

    odd = ["a", "trailing  ", "", "title\tis third", "x\t\ty", "naïve \u2028 \x0b text"]
    lines = [f"{pid}\t{odd[pid % len(odd)]}" for pid in range(PASSAGES)]
    path = tmp_path / "c.tsv"
    path.write_text("id\theader\n" + "\r\n".join(lines[1:]) + "\n", encoding="utf-8", newline="")
    ours = [passage.text for _, passage in read_collection(open_colbert_ai(build(2)), path)]
    assert ours == list(Collection(path=str(path)))


def test_an_index_that_colbert_ai_updated(build: Callable[[int], Path], tmp_path: Path) -> None:
    """Its ``IndexUpdater`` takes a removed passage's tokens, and leaves its number."""
    import shutil

    from colbert.index_updater import IndexUpdater

    path = tmp_path / "updated"
    shutil.copytree(build(2), path)
    updater = IndexUpdater.__new__(IndexUpdater)
    updater.index_path = str(path)
    for pid in (3, 120):
        updater._load_metadata()
        updater._remove_passage_from_disk(pid)
    index = open_colbert_ai(path)
    index.check_all()
    assert np.flatnonzero(np.concatenate(index.lengths) == 0).tolist() == [3, 120]
    (path / "collection.tsv").write_text("".join(f"{pid}\t{text}\n" for pid, text in enumerate(TEXTS)))
    assert [pid for pid, _ in read_collection(index)] == [pid for pid in range(PASSAGES) if pid not in (3, 120)]
    whole = open_colbert_ai(build(2))
    keep = np.repeat(~np.isin(np.arange(PASSAGES), (3, 120)), np.concatenate(whole.lengths))
    np.testing.assert_array_equal(vectors_of(index), vectors_of(whole)[keep])


class StoredEncoder:
    """Encoder of passage 7's text as that passage's vectors, and of query "7" as the seventh of `make_queries`."""

    name = "stored"
    dim = DIM
    fingerprint = "stored"

    def options(self) -> dict[str, Any]:
        return {"name_or_path": self.name}

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        queries = make_queries()
        return [queries[int(text)] for text in texts]

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[NDArray[np.float32]]:
        vectors, lengths = make_vectors()
        passages = np.split(vectors, np.cumsum(lengths)[:-1])
        return [passages[TEXTS.index(text)] for text in texts]


def check_same_top(theirs: Any, index: ColBERTIndex) -> None:
    """Assert the same best hits where colbert-ai scores every passage, so that only the codes matter."""
    same = 0
    for number, query in enumerate(make_queries()):
        everything = {"ncells": PARTITIONS, "centroid_score_threshold": -2.0, "ndocs": 4 * PASSAGES}
        pids, scores = ranked(theirs, query, **everything)
        hits = index.search(str(number), 10)
        np.testing.assert_allclose([hit.score for hit in hits], scores[:10], atol=1e-3)
        same += [hit.text for hit in hits] == [TEXTS[pid] for pid in pids[:10]]
    assert same >= 0.99 * (number + 1), same


@pytest.mark.parametrize("nbits", NBITS)
def test_an_import_ranks_as_colbert_ai_does(
    build: Callable[[int], Path], scorer: Callable[[Path], Any], tmp_path: Path, nbits: int
) -> None:
    (tmp_path / "c.tsv").write_text("".join(f"{pid}\t{text}\n" for pid, text in enumerate(TEXTS)), encoding="utf-8")
    with import_colbert(build(nbits), tmp_path / "ours", StoredEncoder(), collection=tmp_path / "c.tsv") as index:
        check_same_top(scorer(build(nbits)), index)


@pytest.mark.parametrize("nbits", [1, 2, 4])
def test_colbert_ai_ranks_an_export_as_its_import(scorer: Callable[[Path], Any], tmp_path: Path, nbits: int) -> None:
    with ColBERTIndex.create(tmp_path / "ours", StoredEncoder(), nbits=nbits) as index:
        index.upsert([Passage(f"id{pid}", text) for pid, text in enumerate(TEXTS)])
        out = export_colbert(index, tmp_path / "out")
    with import_colbert(out, tmp_path / "back", StoredEncoder()) as back:
        check_same_top(scorer(out), back)
