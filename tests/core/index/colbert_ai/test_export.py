"""Exports of indexes to colbert-ai's format; in test_interop colbert-ai searches them."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from colbert_ai_folders import DIM, decompress, write_folder
from numpy.typing import NDArray
from toy import ToyEncoder

from rerank_integrations import (
    ColBERTIndex,
    IndexClosedError,
    IndexExistsError,
    InvalidInputError,
    Passage,
    export_colbert,
    import_colbert,
)
from rerank_integrations.core.index.colbert_ai import (
    ColbertAIIndex,
    codebook,
    open_colbert_ai,
    quantile_buckets,
    read_collection,
)


class TopicEncoder(ToyEncoder):
    """Encoder that gives words of one topic, such as ``t3`` in ``t3-17``, similar vectors."""

    def _encode(self, text: str) -> NDArray[np.float32]:
        return np.stack([self._of_topic(word) for word in text.split()])

    def _of_topic(self, word: str) -> NDArray[np.float32]:
        row = self._word(word.split("-")[0]) + 0.6 * self._word(word)
        return row / np.linalg.norm(row)


def topic_texts(count: int, seed: int, words: int = 8) -> list[str]:
    drawn = np.random.default_rng(seed)
    return [
        " ".join(f"t{topic}-{drawn.integers(300)}" for topic in drawn.choice(drawn.integers(0, 40, 3), words))
        for _ in range(count)
    ]


def vectors_of(index: ColbertAIIndex) -> list[NDArray[np.float32]]:
    book = codebook(index.codec.bucket_weights, index.codec.nbits)
    return [
        passage
        for chunk in index.chunks()
        for passage in np.split(
            decompress(chunk.codes, chunk.residuals, index.codec.centroids, book), np.cumsum(chunk.lengths)[:-1]
        )
    ]


def check_same_tokens(found: ColbertAIIndex, expected: ColbertAIIndex) -> None:
    for field in dataclasses.fields(expected.codec):
        np.testing.assert_array_equal(getattr(found.codec, field.name), getattr(expected.codec, field.name))
    ours, theirs = list(found.chunks()), list(expected.chunks())
    for name in ("codes", "residuals", "lengths"):
        np.testing.assert_array_equal(*(np.concatenate([getattr(c, name) for c in part]) for part in (ours, theirs)))


def top(index: ColBERTIndex, query: str) -> list[str]:
    return [hit.id for hit in index.search(query, 10)]


def test_an_imported_index_comes_out_bit_for_bit(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "theirs")
    with import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM)) as index:
        assert export_colbert(index, tmp_path / "new" / "out") == tmp_path / "new" / "out"
    exported = open_colbert_ai(tmp_path / "new" / "out")
    exported.check_all()
    check_same_tokens(exported, open_colbert_ai(source))
    assert exported.checkpoint == "toy"
    assert list(read_collection(exported)) == list(read_collection(open_colbert_ai(source)))


def test_a_changed_imported_index_keeps_what_was_imported(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "theirs")
    with import_colbert(source, tmp_path / "ours", ToyEncoder(dim=DIM)) as index:
        index.upsert([Passage("new", "red fox", {"n": 1}), Passage("3", "blue whale sings", {})])
        index.delete(["1"])
        exported = open_colbert_ai(export_colbert(index, tmp_path / "out"))
        scores = {hit.id: hit.score for hit in index.search("red fox", 9, exact=True)}
    passages = {passage.id: (pid, passage) for pid, passage in read_collection(exported)}
    assert set(passages) == {"0", "2", "3", "4", "new"}
    assert [pid for pid, _ in passages.values()] == [0, 1, 2, 3, 4]
    assert passages["new"][1] == Passage("new", "red fox", {"n": 1})
    assert passages["3"][1].text == "blue whale sings"
    found, before = vectors_of(exported), vectors_of(open_colbert_ai(source))
    for key in ("0", "2", "4"):
        np.testing.assert_array_equal(found[passages[key][0]], before[int(key)])
    (query,) = ToyEncoder(dim=DIM).encode_queries(["red fox"])
    for key, score in scores.items():
        assert (query @ found[passages[key][0]].T).max(axis=1).sum() == pytest.approx(score, abs=1e-4)


def test_an_exact_index_is_compressed_as_colbert_ai_does(tmp_path: Path) -> None:
    texts = topic_texts(600, seed=1)
    model = TopicEncoder(dim=64)
    with ColBERTIndex.create(tmp_path / "ours", model, nbits=4) as index:
        index.upsert([Passage(f"p{place}", text, {"n": place}) for place, text in enumerate(texts)])
        index.delete([f"p{place}" for place in range(100, 200)])
        exported = open_colbert_ai(export_colbert(index, tmp_path / "out", show_progress=False))
    exported.check_all()
    left = [place for place in range(600) if not 100 <= place < 200]
    assert list(read_collection(exported)) == [
        (pid, Passage(f"p{place}", texts[place], {"n": place})) for pid, place in enumerate(left)
    ]
    codec = exported.codec
    assert (codec.nbits, codec.dim) == (4, 64)
    np.testing.assert_allclose(np.linalg.norm(codec.centroids, axis=1), 1, atol=1e-3)
    tokens = np.concatenate(model.encode_documents([texts[place] for place in left]))
    codes = np.concatenate([chunk.codes for chunk in exported.chunks()])
    # colbert-ai's own rule: the largest product.
    assert (codes == (tokens @ codec.centroids.T).argmax(axis=1)).mean() > 0.99
    residuals = tokens - codec.centroids[codes]
    cutoffs, weights = quantile_buckets(residuals, 4)
    np.testing.assert_allclose(codec.bucket_cutoffs, cutoffs, atol=2e-3)
    np.testing.assert_allclose(codec.bucket_weights, weights, atol=5e-3)
    assert codec.avg_residual == pytest.approx(np.abs(residuals).mean(), rel=0.05)
    cosines = np.einsum("ij,ij->i", np.concatenate(vectors_of(exported)), tokens)
    assert cosines.mean() > 0.995


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a compressed index of 2 bits, with some passages deleted."""
    path = tmp_path_factory.mktemp("compressed") / "ours"
    with ColBERTIndex.create(path, TopicEncoder(dim=64), nbits=2) as index:
        index.upsert([Passage(f"p{place}", text) for place, text in enumerate(topic_texts(4400, seed=2))])
        index.delete([f"p{place}" for place in range(0, 4400, 11)])
        assert (index.stats().kind, len(index)) == ("plaid", 4000)
    return path


@pytest.mark.slow
def test_a_compressed_index_finds_nearly_the_same_after_export_and_import(compressed: Path, tmp_path: Path) -> None:
    with (
        ColBERTIndex.open(compressed, TopicEncoder(dim=64)) as index,
        import_colbert(export_colbert(index, tmp_path / "out"), tmp_path / "back", TopicEncoder(dim=64)) as back,
    ):
        assert len(back) == len(index)
        assert back.get(["p1", "p11"]) == index.get(["p1", "p11"])
        assert back.stats().centroids == index.stats().centroids
        queries = topic_texts(50, seed=3, words=6)
        shared = [len({*top(index, query)} & {*top(back, query)}) for query in queries]
        assert np.mean(shared) >= 8, np.mean(shared)


def test_a_path_in_place_of_an_index(compressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Nothing is encoded, so that the recorded model need not exist.
    assert export_colbert(str(compressed), "out") == tmp_path / "out"
    assert open_colbert_ai(tmp_path / "out").num_passages == 4000


def test_an_index_of_two_codecs(tmp_path: Path) -> None:
    """An imported index that has outgrown its centroids, so that most tokens use the newer codec."""
    texts = topic_texts(800, seed=4)
    model = TopicEncoder(dim=64)
    with ColBERTIndex.create(None, model) as small:
        small.upsert([Passage(f"p{place}", text) for place, text in enumerate(texts[:150])])
        source = export_colbert(small, tmp_path / "theirs")
    with import_colbert(source, tmp_path / "ours", model) as index:
        before = index.stats().centroids
        index.upsert([Passage(f"p{place}", text) for place, text in enumerate(texts[:700])])
        index.upsert([Passage(f"p{place}", text) for place, text in enumerate(texts[700:], 700)])
        assert index.stats().centroids > before
        exported = open_colbert_ai(export_colbert(index, tmp_path / "out"))
        assert exported.num_passages == len(index) == 800
        assert len(exported.codec.centroids) == index.stats().centroids
    vectors = dict(zip((p.id for _, p in read_collection(exported)), vectors_of(exported), strict=True))
    for places in (range(150), range(700, 800)):
        found = np.concatenate([vectors[f"p{place}"] for place in places])
        tokens = np.concatenate(model.encode_documents([texts[place] for place in places]))
        assert np.einsum("ij,ij->i", found, tokens).mean() > 0.9


def test_one_commit_is_exported_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    stop = threading.Event()

    def write(index: ColBERTIndex) -> None:
        version = 0
        while not stop.is_set():
            version += 1
            index.upsert([Passage(f"p{place}", f"version {version} of {place}") for place in range(100)])
            index.compact()

    with ColBERTIndex.create(tmp_path / "ours", ToyEncoder(dim=32)) as index:
        index.upsert([Passage(f"p{place}", f"version 0 of {place}") for place in range(100)])
        writer = threading.Thread(target=write, args=(index,))
        writer.start()
        try:
            seen = set()
            for number in range(8):
                exported = open_colbert_ai(export_colbert(index, tmp_path / f"out{number}"))
                passages = [passage for _, passage in read_collection(exported)]
                (version,) = {passage.text.split()[1] for passage in passages}
                assert {passage.id for passage in passages} == {f"p{place}" for place in range(100)}
                (word,) = ToyEncoder(dim=32).encode_documents([version])
                assert all(passage[1] @ word[0] > 0.99 for passage in vectors_of(exported))
                seen.add(version)
        finally:
            stop.set()
            writer.join()
        assert len(seen) > 1


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with ColBERTIndex.create(tmp_path / "ours", ToyEncoder(dim=16), nbits=4) as index:
        with pytest.raises(InvalidInputError, match="holds no tokens"):
            export_colbert(index, tmp_path / "out")
        index.upsert(["a text"])
        with pytest.raises(InvalidInputError, match="is 16; with nbits=4 colbert-ai packs a multiple of 32"):
            export_colbert(index, tmp_path / "out")
        with pytest.raises(IndexExistsError, match="expected nothing there"):
            export_colbert(index, index.path)
        with pytest.raises(InvalidInputError, match="path of a folder"):
            export_colbert(index, "")
    with pytest.raises(IndexClosedError):
        export_colbert(index, tmp_path / "out")
    with pytest.raises(InvalidInputError, match="expected a path, a ColBERTIndex, or a mapping of path and model"):
        export_colbert(3, tmp_path / "out")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_passages_without_tokens_are_kept(tmp_path: Path) -> None:
    with ColBERTIndex.create(tmp_path / "ours", ToyEncoder(dim=32)) as index:
        index.upsert([Passage("mark", "!"), Passage("fox", "red fox"), Passage("blank", "")])
        out = export_colbert(index, tmp_path / "out")
        with import_colbert(out, tmp_path / "back", ToyEncoder(dim=32)) as back:
            assert back.get(["blank", "mark", "fox"]) == index.get(["blank", "mark", "fox"])
            found, expected = (one.search("red fox") for one in (back, index))
            assert [hit.id for hit in found] == [hit.id for hit in expected]
            np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-2)
