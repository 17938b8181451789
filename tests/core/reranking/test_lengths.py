"""Truncation of a text or a query is reported, and refused in strict mode."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from checkpoints import FAMILIES, write_cross_encoder, write_pylate_colbert, write_stanford_colbert
from corpus import CHINESE, ENGLISH
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from toy import ToyEncoder

from rerank_integrations import (
    ColBERTModel,
    ColBERTScorer,
    CrossEncoderModel,
    InvalidInputError,
    Passage,
    Reranker,
    TextTooLongError,
    rerank,
)
from rerank_integrations.core.models.lengths import pair_cut, text_room
from rerank_integrations.core.reranking.lengths import Lengths

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")

SHORT, LONG = ENGLISH[0], " ".join(ENGLISH)


@pytest.mark.parametrize("write", [write_stanford_colbert, write_pylate_colbert])
def test_colbert_tells_what_it_cuts(tmp_path: Path, write: Any) -> None:
    model = ColBERTModel(write(tmp_path / "model"), dtype="float32", device="cpu", document_length=20)
    (markers,) = model.token_counts([""])
    words = ["rain"] * (20 - markers)
    texts = [" ".join(words), " ".join([*words, "rain"]), "The cat sat.", "", CHINESE[0] * 3]
    hits = {hit.text: hit.note for hit in rerank("rain", texts, model)}
    assert [hits[text].get("truncated") for text in texts] == [None, True, None, None, True]
    assert not any("query_truncated" in note for note in hits.values())
    # The vectors agree: one more word changes nothing.
    assert model.score("rain", [texts[1]]) == pytest.approx(model.score("rain", [texts[1] + " storm"]), abs=1e-6)


def test_colbert_tells_that_it_cuts_the_query(colbert_dir: Path) -> None:
    model = ColBERTModel(colbert_dir, dtype="float32", device="cpu", query_length=8)
    fits, cut = " ".join(["rain"] * 6), " ".join(["rain"] * 7)
    assert [hit.note.get("query_truncated") for hit in rerank(fits, [SHORT], model)] == [None]
    assert [hit.note.get("query_truncated") for hit in rerank(cut, [SHORT, LONG], model)] == [True, True]
    assert len(rerank(LONG, [SHORT], model, strict=True)) == 1


@given(query=st.integers(0, 60), text=st.integers(0, 60), room=st.integers(2, 50))
def test_what_longest_first_cuts(query: int, text: int, room: int) -> None:
    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.enable_truncation(room, strategy="longest_first")
    kept = tokenizer.encode("a " * query, "b " * text).ids
    cut = pair_cut(query, text, room)
    assert cut == (kept.count(0) < query, kept.count(1) < text)
    assert (cut.query or cut.text) == (query + text > room)
    fits = text_room(query, room)
    assert not pair_cut(query, fits, room).text
    assert query + fits + 1 <= room or pair_cut(query, fits + 1, room).text or fits >= room // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cross_encoder_tells_which_of_a_pair_it_cuts(tmp_path: Path, family: Any) -> None:
    from transformers import AutoTokenizer

    path = write_cross_encoder(tmp_path / family, family)
    tokenizer = AutoTokenizer.from_pretrained(str(path))
    model = CrossEncoderModel(path, dtype="float32", device="cpu", max_length=24, activation="raw")

    def read(query: str, text: str, **truncation: Any) -> Counter[int | None]:
        return Counter(tokenizer(query, text, **truncation).sequence_ids())

    queries = ["a" + " a" * count for count in range(0, 40, 3)]
    told = set()
    for query in queries:
        texts = ["a" + " a" * count for count in range(0, 40, 4)]
        for hit in rerank(query, texts, model):
            whole, kept = read(query, hit.text), read(query, hit.text, truncation=True, max_length=24)
            cut = hit.note.get("query_truncated", False), hit.note.get("truncated", False)
            assert cut == (kept[0] < whole[0], kept[1] < whole[1])
            told.add(cut)
    assert len(told) == 4


def test_strict_names_what_would_be_cut(colbert: ColBERTModel, cross_encoder_dir: Path) -> None:
    short = CrossEncoderModel(cross_encoder_dir, dtype="float32", device="cpu", max_length=40)
    given_ = [Passage("fits", SHORT), Passage("long", LONG), Passage("longer", LONG + LONG)]
    for model in (colbert, short):
        with pytest.raises(TextTooLongError, match=r"2 of 3 texts .* number 1 \('long'\), number 2 \('longer'\)"):
            rerank("rain", given_, model, strict=True)
        assert len(rerank("rain", given_[:1], model, strict=True)) == 1
        assert rerank("rain", [], model, strict=True) == []
        assert rerank("rain", given_, model, strict=True, top_n=0) == []
        assert len(rerank("rain", given_, model, strict=True, window=16)) == 3
    with pytest.raises(TextTooLongError, match=r"5 of 5 .* and 2 more"):
        rerank("rain", [f"{LONG} {number}" for number in range(5)], colbert, strict=True)


def test_strict_is_about_what_is_scored(colbert: ColBERTModel) -> None:
    from rerank_integrations import Candidate

    reranker = Reranker(ColBERTScorer(colbert), strict=True, max_candidates=1)
    assert len(reranker.rank("rain", [Candidate(None, SHORT), Candidate(None, LONG)])) == 1


def test_strict_needs_a_scorer_that_tells() -> None:
    class Own:
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [0.0] * len(texts)

    for scorer in (Own(), ColBERTScorer(ToyEncoder())):
        with pytest.raises(InvalidInputError, match="does not say what it cuts"):
            rerank("rain", ["text"], scorer, strict=True)
        with pytest.raises(InvalidInputError, match="does not say what it cuts"):
            rerank("rain", [], scorer, strict=True)
    with pytest.raises(InvalidInputError, match="strict"):
        rerank("rain", ["text"], Own(), strict=1)  # type: ignore[arg-type]


def test_an_encoder_that_does_not_tell_its_lengths() -> None:
    (hit,) = rerank("rain", [LONG], ColBERTScorer(ToyEncoder()))
    assert hit.note == {"retrieval_rank": 1, "score_scale": "maxsim_sum", "vectors_from": "encoded"}


def test_a_strict_reranker_is_made_without_loading_its_model() -> None:
    missing = "/no/such/checkpoint"
    for scorer in (
        ColBERTScorer(ColBERTModel(missing)),
        ColBERTScorer(ColBERTModel(missing), window=16),
    ):
        Reranker(scorer, strict=True)


TEXTS = st.lists(
    st.text(st.sampled_from("ab zﷺé中 -\u0301😀"), max_size=40) | st.sampled_from([*ENGLISH[:3], *CHINESE[:2]]),
    max_size=6,
)


@given(calls=st.lists(st.tuples(TEXTS, st.integers(1, 40)), max_size=4))
def test_remembered_lengths_are_the_counts(unigram: ColBERTModel, calls: list[tuple[list[str], int]]) -> None:
    lengths = Lengths(unigram)
    for texts, limit in calls:
        counts = unigram.token_counts(texts)
        assert lengths.longer(texts, limit) == {
            text for text, count in zip(texts, counts, strict=True) if count > limit
        }


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory, colbert_dir: Path) -> ColBERTModel:
    """Return a model whose tokenizer expands letters, as XLM-R's does: one Arabic ligature is eighteen letters."""
    import shutil

    from checkpoints.vocabulary import ROBERTA_SPECIALS, unigram_tokenizer, write_tokenizer

    path = tmp_path_factory.mktemp("unigram") / "model"
    shutil.copytree(colbert_dir, path)
    write_tokenizer(path, unigram_tokenizer(), "XLMRobertaTokenizer", ROBERTA_SPECIALS)
    return ColBERTModel(path, dtype="float32", device="cpu")


def test_a_letter_that_unfolds_into_many_tokens(unigram: ColBERTModel) -> None:
    text = "\ufdfa" * 4
    (count,) = unigram.token_counts([text])
    assert Lengths(unigram).longer([text], count - 1) == {text}
    assert Lengths(unigram).longer([text], count) == set()


def test_a_text_s_tokens_are_counted_once() -> None:
    class Counting(ToyEncoder):
        counted: list[str] = []  # noqa: RUF012

        def cuts_queries(self, texts: list[str]) -> list[bool]:
            return [False] * len(texts)

        def document_limit(self, length: int | None = None) -> int:
            return 10

        def token_counts(self, texts: list[str]) -> list[int]:
            self.counted += texts
            return [len(text.split()) for text in texts]

        def token_spans(self, texts: list[str]) -> list[list[tuple[int, int]]]:
            return [[] for _ in texts]

    scorer = ColBERTScorer(Counting())
    for _ in range(3):
        hits = rerank("rain", [LONG, SHORT, "two words"], scorer)
        assert {hit.text: hit.note.get("truncated") for hit in hits} == {LONG: True, SHORT: True, "two words": None}
    assert sorted(Counting.counted) == sorted(["", LONG, SHORT])
