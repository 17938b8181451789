"""Words of an explanation, and where words begin and end."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from explained_texts import COMBINING, PAIRS, make_explanation

from rerank_integrations import ColBERTModel
from rerank_integrations.core.explanations.words import word_boundaries

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")


def test_pieces_are_joined_to_words() -> None:
    explanation = make_explanation(
        "embeddings of 2.5 don't",
        "An embedding isn't a naïve_idea: 2.5.",
        [
            ("em", "em", 0.8),
            ("bed", "bedding", 0.6),
            ("dings", "naïve", 0.4),
            ("of", "", 0.2),
            ("2", "2", 1.0),
            (".", "", 0.0),
            ("5", "5", 0.9),
            ("don", "isn", 0.5),
            ("'", "'", 0.7),
            ("t", "t", 0.6),
        ],
    )
    words = {word.query_word: word for word in explanation.words()}
    assert list(words) == ["embeddings", "of", "2.5", "don't"]
    long = words["embeddings"]
    assert [(match.word, round(match.score, 6), round(match.mean, 6)) for match in long.matched] == [
        ("embedding", 1.4, 0.7),
        ("naïve", 0.4, 0.4),
    ]
    assert (long.query_start, long.query_end) == (0, 10)
    assert (long.score, long.mean) == (pytest.approx(1.8), pytest.approx(0.6))
    assert long.tokens == explanation.matches[:3]
    assert [(match.word, match.start, match.end) for match in words["of"].matched] == [("[SEP]", 0, 0)]
    assert [match.word for match in words["2.5"].matched] == ["2.5", "[SEP]"]
    # The first "t" of the text is in "isn't".
    assert [match.word for match in words["don't"].matched] == ["isn't"]
    matched = [match for word in explanation.words() for match in word.matched if match.end]
    assert all(explanation.text[match.start : match.end] == match.word for match in matched)


def test_each_chinese_character_is_a_word(colbert: ColBERTModel) -> None:
    query, text = PAIRS["chinese"]
    words = colbert.explain(query, text).words()
    assert [word.query_word for word in words] == list(query)
    assert all(len(match.word) == 1 for word in words for match in word.matched if match.end)


def test_accents_and_parts_of_emoji_stay_with_their_letters() -> None:
    text = f"{COMBINING} 👩\u200d👧 \u0928\u092e\u0938\u094d\u0924\u0947 می\u200cخواهم"
    pieces = ["caf", "re", "👩", "\u0928\u092e", "می"]
    explanation = make_explanation("a b c d e", text, list(zip("abcde", pieces, [0.5] * 5, strict=True)))
    words = [match.word for word in explanation.words() for match in word.matched]
    assert words == ["cafe\u0301", "cre\u0300me", "👩\u200d👧", "\u0928\u092e\u0938\u094d\u0924\u0947", "می\u200cخواهم"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zipfile.ZipFile: don’t, 2.5 1'000", ["zipfile", ".", "ZipFile", ":", "don’t", ",", "2.5", "1'000"]),
        ("snake_case file.The std::map", ["snake", "_", "case", "file", ".", "The", "std", ":", ":", "map"]),
        ("CO₂ 10 m², x₁", ["CO₂", "10", "m²", ",", "x₁"]),
        ("Kapitäns-Mütze süß Brand\u00adschutz", ["Kapitäns", "-", "Mütze", "süß", "Brand\u00adschutz"]),
        ("猫在 コンピュータを使う ครับ", ["猫", "在", "コンピュータ", "を", "使", "う", "ค", "รั", "บ"]),
        ('한국어 단어 ע"ד', ["한국어", "단어", 'ע"ד']),
        ("🇩🇪🇫🇷 👍🏽zip ❤️ 1️⃣", ["🇩🇪", "🇫🇷", "👍🏽", "zip", "❤️", "1️⃣"]),
        ("C'est\u202f: 10\u202f000", ["C'est", ":", "10", "000"]),
    ],
)
def test_words_of_many_scripts(text: str, words: list[str]) -> None:
    boundaries = word_boundaries(text)
    pieces = [text[start:end] for start, end in pairwise(boundaries)]
    assert [piece for piece in pieces if not piece.isspace()] == words
    assert "".join(pieces) == text


@pytest.mark.parametrize("piece", ["🇩🇪", "🇩\u0301", "a\u0301", "👩\u200d", "'a", "中", "_.", "zip"])
def test_finding_words_in_a_long_run_takes_linear_time(piece: str) -> None:
    text = piece * 50_000
    start = time.process_time()
    boundaries = word_boundaries(text)
    assert time.process_time() - start < 5
    assert (boundaries[0], boundaries[-1]) == (0, len(text))


def test_words_sum_to_what_is_explained(colbert: ColBERTModel) -> None:
    for query, text in PAIRS.values():
        explanation = colbert.explain(query, text)
        assert sum(word.score for word in explanation.words()) == pytest.approx(explanation.explained)
        assert all(
            word.score == pytest.approx(sum(match.score for match in word.matched)) for word in explanation.words()
        )


def test_an_unknown_token_is_shown_by_its_characters(colbert: ColBERTModel) -> None:
    explanation = colbert.explain("☃", "a ☃ here")
    assert explanation[0].query_token == "[UNK]"
    assert [word.query_word for word in explanation.words()] == ["☃"]
    for shown in (explanation.to_text(), re.sub("<details>.*</details>", "", explanation.to_html(), flags=re.DOTALL)):
        assert "☃" in shown
        assert "[UNK]" not in shown
