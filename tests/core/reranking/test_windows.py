"""Windows: their boundaries, the best one's score, and its span in the note."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES, write_cross_encoder
from corpus import CHINESE, ENGLISH, QUERIES
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_integrations import (
    ColBERTModel,
    ColBERTScorer,
    CrossEncoderModel,
    Hit,
    InvalidInputError,
    Passage,
    TextTooLongError,
    rerank,
)
from rerank_integrations.core.reranking.windows import Windows

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")

LETTERS = "ab é中国。 ' \n\u0301\u0302😀ﬁ_-7ก"


def spans_of(text: str, lengths: list[int]) -> list[tuple[int, int]]:
    """Return tokens like a tokenizer's: none for a space, several for an emoji, else some letters each."""
    spans, at, turn = [], 0, 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "😀":
            spans += [(at, at + 1)] * 4
            at += 1
        else:
            end = min(at + lengths[turn % len(lengths)], len(text))
            end = next((place for place in range(at, end) if text[place].isspace() or text[place] == "😀"), end)
            spans.append((at, end))
            at, turn = end, turn + 1
    return spans


def longest_letter(text: str, tokens: list[tuple[int, int]]) -> int:
    """Return the number of tokens of the longest letter, its marks included."""
    first = [
        place
        for place, (start, _) in enumerate(tokens)
        if place == 0 or (start >= tokens[place - 1][1] and not unicodedata.combining(text[start]))
    ]
    return max(after - before for before, after in itertools.pairwise([*first, len(tokens)]))


TEXTS = st.text(st.sampled_from(LETTERS), max_size=150) | st.lists(
    st.sampled_from([*ENGLISH[:5], *CHINESE[:3], "x" * 60, "😀" * 9, "e\u0301" * 20]), max_size=6
).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(
    text=TEXTS,
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    size=st.integers(8, 40),
    share=st.floats(0, 1),
)
def test_windows_hold_every_token_and_none_is_too_long(text: str, lengths: list[int], size: int, share: float) -> None:
    tokens = spans_of(text, lengths)
    stride = max(1, int(size * share))
    windows = Windows(size, stride).spans(text, tokens)
    if len(tokens) <= size:
        assert windows == [(0, len(text))]
        return
    starts = [start for start, _ in tokens]
    assert windows[0][0] == 0
    assert windows[-1][1] == len(text)
    for start, end in windows:
        assert start < end
        # Every token is wholly in a window or wholly outside of it.
        assert all(place <= start or place >= end or start <= place < end for place in starts)
        assert sum(start <= one < end for one, _ in tokens) <= size
    for (before, end), (after, later) in itertools.pairwise(windows):
        assert before <= after <= end < later
    # However words lie, so many consecutive tokens stand in one window; letters of several tokens shift its borders.
    gap = longest_letter(text, tokens)
    together = min(size // 2 + 1, size - gap + 1) - (stride + gap - 1)
    for place in range(len(tokens) - together + 1 if together > 0 else 0):
        first, last = starts[place], tokens[place + together - 1][1]
        assert any(start <= first and last <= end for start, end in windows)


def test_where_every_letter_is_a_word_windows_are_regular() -> None:
    text = "".join(CHINESE)
    assert Windows(20, 7).spans(text, [(place, place + 1) for place in range(len(text))]) == [
        (start, start + 20 if start + 20 < len(text) else len(text))
        for start in range(0, len(text) - 20 + 7, 7)
        if start == 0 or start - 7 + 20 < len(text)
    ]


def test_windows_start_between_words_or_letters() -> None:
    text = " ".join(ENGLISH[:6])
    tokens = spans_of(text, [3])
    for start, end in Windows(12, 6).spans(text, tokens):
        assert start == 0 or not (text[start - 1].isalnum() and text[start].isalnum())
        assert end == len(text) or not (text[end - 1].isalnum() and text[end].isalnum())
    accented = "e\u0301" * 100
    tokens = [(place, place + 1) for place in range(200)]
    assert all(start % 2 == 0 for start, _ in Windows(9, 3).spans(accented, tokens))
    chinese = "".join(CHINESE)
    assert len(Windows(10, 10).spans(chinese, [(n, n + 1) for n in range(len(chinese))])) == -(-len(chinese) // 10)


def test_marks_without_a_letter_are_cut_too() -> None:
    text = "e" + "\u0301" * 100
    windows = Windows(8, 8).spans(text, [(place, place + 1) for place in range(101)])
    assert all(end - start <= 8 for start, end in windows)
    assert "".join(text[start:end] for start, end in windows) == text


@pytest.mark.parametrize(("size", "stride"), [(100, 25), (100, 100), (100, 1), (8, 4)])
def test_a_model_that_reads_less_keeps_the_overlap(size: int, stride: int) -> None:
    fitted = Windows(size, stride).within(42)
    assert fitted.size == min(size, 40)
    assert fitted.stride == max(1, stride * fitted.size // size)
    assert Windows(size, stride).within(1) == Windows(1, 1)


LONG = [
    " ".join([*ENGLISH[20:44], "Saturn has rings of ice and dust.", *ENGLISH[44:52]]),
    "".join([*CHINESE[2:], "北京是中国的首都。", *CHINESE[:1]]),
    "unbelievable" * 40 + " Saturn has rings of ice and dust.",
    " ".join(["cafe\u0301 naïve 😀 ﷺ"] * 30) + " Mars looks red.",
]


def texts_of(hit: Hit) -> str:
    return hit.text[hit.note["window_start"] : hit.note["window_end"]]


def naive_maxsim(model: ColBERTModel, query: str, text: str) -> float:
    (asked,), (tokens,) = model.encode_queries([query]), model.encode_documents([text])
    return sum(max(float(np.dot(word, token)) for token in tokens) for word in asked)


@pytest.mark.parametrize("window", [(9, 4), (24, 12), (24, 24), (500, 250)])
@pytest.mark.parametrize("text", LONG, ids=["english", "chinese", "giant word", "marks"])
def test_the_best_window_of_colbert(colbert: ColBERTModel, text: str, window: tuple[int, int]) -> None:
    size, stride = window
    query = "北京是中国的首都" if "北京" in text else "rings of Saturn"
    (hit,) = rerank(query, [text], ColBERTScorer(colbert, window=size, stride=stride))
    (tokens,) = colbert.token_spans([text])
    windows = Windows(size, stride).within(180 - 2).spans(text, tokens)
    naive = [naive_maxsim(colbert, query, text[start:end]) for start, end in windows]
    assert hit.score == pytest.approx(max(naive), abs=1e-4)
    assert naive[windows.index((hit.note["window_start"], hit.note["window_end"]))] == pytest.approx(
        max(naive), abs=1e-4
    )
    assert "truncated" not in hit.note


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("window", [(16, 8), (500, 300)])
def test_the_best_window_of_a_cross_encoder(tmp_path: Path, family: Any, window: tuple[int, int]) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    path = write_cross_encoder(tmp_path / family, family)
    model = CrossEncoderModel(path, dtype="float32", device="cpu", activation="raw", max_length=64)
    reference = CrossEncoder(str(path), device="cpu", max_length=64)
    size, stride = window
    for text, query in zip(LONG, ["rings of Saturn", "中国的首都", "Saturn", QUERIES[2]], strict=True):
        (hit,) = rerank(query, [text], model, window=size, stride=stride)
        (tokens,) = model.token_spans([text])
        windows = Windows(size, stride).within(model.room(query)).spans(text, tokens)
        expected = reference.predict(
            [(query, text[start:end]) for start, end in windows], activation_fn=torch.nn.Identity()
        )
        assert hit.score == pytest.approx(float(expected.max()), abs=1e-4)
        best = windows.index((hit.note["window_start"], hit.note["window_end"]))
        assert expected[best] == pytest.approx(float(expected.max()), abs=1e-4)
        assert "truncated" not in hit.note


def test_the_span_holds_the_answer() -> None:
    from toy import ToyEncoder

    class Words(ToyEncoder):
        """Model that reports its tokens: one per word, no markers."""

        def options(self) -> dict[str, Any]:
            return {"name_or_path": "words", "document_length": 20}

        def cuts_queries(self, texts: list[str]) -> list[bool]:
            return [False] * len(texts)

        def document_limit(self, length: int | None = None) -> int:
            return 20 if length is None else length

        def token_counts(self, texts: list[str]) -> list[int]:
            return [len(spans) for spans in self.token_spans(texts)]

        def token_spans(self, texts: list[str]) -> list[list[tuple[int, int]]]:
            import re

            return [[match.span() for match in re.finditer(r"\w+", text)] for text in texts]

    answer = "Saturn has rings of ice and dust."
    given = [Passage(f"p{place}", " ".join([*ENGLISH[:place], answer, *ENGLISH[place:12]])) for place in range(12)]
    hits = rerank("Saturn rings ice dust", given, ColBERTScorer(Words(), window=14, stride=7))
    assert all("Saturn has rings of ice and dust" in texts_of(hit) for hit in hits)
    assert [hit.score for hit in hits] == pytest.approx([4.0] * 12, abs=1e-5)
    # Equal scores in the order they came; the last bit of some depends on where the window lies in its text.
    scores = {hit.id: hit.score for hit in hits}
    assert list(scores) == sorted((passage.id for passage in given), key=lambda key: -scores[key])


def test_a_text_that_fits_is_scored_whole(colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> None:
    texts = [*ENGLISH[:4], ""]
    for model in (colbert, cross_encoder):
        windowed = {hit.text: hit for hit in rerank("rain", texts, model, window=40)}
        whole = {hit.text: hit for hit in rerank("rain", texts, model)}
        for text in texts:
            assert windowed[text].score == pytest.approx(whole[text].score, abs=1e-5)
            assert (windowed[text].note["window_start"], windowed[text].note["window_end"]) == (0, len(text))
            assert "window_start" not in whole[text].note


def test_a_long_query_leaves_a_window_half_of_the_pair(cross_encoder_dir: Path) -> None:
    model = CrossEncoderModel(cross_encoder_dir, dtype="float32", device="cpu", max_length=43)
    query, text = " ".join(["rain"] * 500), " ".join(ENGLISH[:12])
    assert model.room("rain") == 39
    assert model.room(query) == 20
    (hit,) = rerank(query, [text], model, window=32)
    assert hit.note["query_truncated"] is True
    assert "truncated" not in hit.note
    (tokens,) = model.token_spans([texts_of(hit)])
    assert 9 <= len(tokens) <= 18
    assert rerank(query, [text], model, window=32, strict=True)[0].score == hit.score


def test_windows_that_a_model_still_cuts_are_told(colbert_dir: Path) -> None:
    # Of a word in pieces, a piece in the middle has more tokens by itself.
    texts = ["able" * 24 + " " + "ness" * 24, " ".join(ENGLISH[:3])]
    model = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=12)
    told = set()
    for query in QUERIES:
        for hit in rerank(query, texts, model, window=12, stride=12):
            cut = model.token_counts([texts_of(hit)])[0] > 12
            assert hit.note.get("truncated", False) == cut
            told.add((hit.text == texts[0], cut))
    assert told >= {(True, True), (False, False)} and (False, True) not in told
    with pytest.raises(TextTooLongError, match="number 0"):
        rerank("rain", texts, model, window=12, stride=12, strict=True)
    assert len(rerank("rain", texts[1:], model, window=12, stride=12, strict=True)) == 1


def test_a_window_that_is_nan_shows(cross_encoder: CrossEncoderModel) -> None:
    from rerank_integrations.core.reranking.windows import best_window

    assert best_window([1.0, float("nan"), 2.0]) == 1
    assert best_window([float("-inf"), float("-inf")]) == 0
    assert best_window([1.0, 3.0, 3.0, float("-inf")]) == 1


@pytest.mark.parametrize(
    ("window", "stride"),
    [
        *((window, None) for window in (7, 0, -1, True, 16.0, "16")),
        *((16, stride) for stride in (0, 17, True, 1.5)),
        (None, 4),
    ],
)
def test_windows_of_a_wrong_kind(cross_encoder: CrossEncoderModel, window: Any, stride: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"window|stride"):
        rerank("rain", ["text"], cross_encoder, window=window, stride=stride)


def test_windows_need_a_model_that_tells_its_tokens(colbert: ColBERTModel) -> None:
    class Own:
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [0.0] * len(texts)

    for scorer in (Own(), ColBERTScorer(colbert)):
        for arguments in ({"window": 16}, {"stride": 4}):
            with pytest.raises(InvalidInputError, match="expected a ColBERTModel"):
                rerank("rain", ["text"], scorer, **arguments)


def test_numpy_numbers_are_numbers(colbert: ColBERTModel) -> None:
    text = " ".join(ENGLISH[:9])
    expected = rerank("rain", [text], colbert, window=16, stride=4)
    assert rerank("rain", [text], colbert, window=np.int64(16), stride=np.uint8(4)) == expected  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        rerank("rain", [text], colbert, window=np.float64(16))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        rerank("rain", [text], colbert, window=np.bool_(True))  # type: ignore[arg-type]
