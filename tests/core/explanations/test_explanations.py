"""Explanations, compared with a similarity matrix of the encoded vectors, and their views."""

from __future__ import annotations

import json
import pickle
import re
import string
import time
import unicodedata
from html.parser import HTMLParser
from io import BytesIO, TextIOWrapper
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_multi_vector
from checkpoints.vocabulary import ROBERTA_SPECIALS, bpe_tokenizer, unigram_tokenizer, write_tokenizer
from corpus import CHINESE, ENGLISH, LONG_TEXT
from rich.console import Console
from tokenizers import Tokenizer

from rerank_integrations import (
    ColBERTModel,
    CrossEncoderModel,
    Explanation,
    Hit,
    InvalidInputError,
    Passage,
    TokenMatch,
    explain,
)
from rerank_integrations.core.explanations.words import word_boundaries

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")

COMBINING = "The cafe\u0301 serves cre\u0300me bru\u0302le\u0301e."
PAIRS = {
    "english": ("read a zip file", ENGLISH[2]),
    "pieces": ("extracting photographs", "Compression makes text much smaller, but photographs hardly shrink."),
    "chinese": ("中国的首都", "北京是中国的首都。"),
    "full width": ("净利润？", "“公司”今年（２０２４）的净利润：增长了！百分之十二。"),
    "emoji": ("👍 zip 👩\u200d👩\u200d👧", "A 👍🏽 zip👍 file 🎉, with 👩\u200d👩\u200d👧."),
    "combining": ("the cafe\u0301", COMBINING),
    "cut": ("old library fire", LONG_TEXT),
    "empty": ("read a zip file", ""),
    "punctuation": ("zip?", "... -- !?"),
    "unknown": ("ξένος ☃ 鑫", "Ο ξένος and a ☃ with 鑫"),
    "blank query": ("  ", "a zip file"),
    "controls": ("zip", "a\x1b[31m zip\x07 \u202efile\x9b2J\x00"),
}


@pytest.fixture(scope="module", params=["colbert_dir", "stanford_dir"])
def model(request: pytest.FixtureRequest) -> ColBERTModel:
    return ColBERTModel(request.getfixturevalue(request.param), dtype="float32", device="cpu", document_length=40)


def offsets(model: ColBERTModel, text: str) -> list[tuple[str, tuple[int, int]]]:
    """Return the tokens of a text with their spans, by the tokenizer's file alone."""
    encoding = Tokenizer.from_file(str(Path(model.name) / "tokenizer.json")).encode(text, add_special_tokens=False)
    return list(zip(encoding.tokens, encoding.offsets, strict=True))


@pytest.mark.parametrize("name", PAIRS)
def test_matches_are_the_rows_of_a_naive_similarity(model: ColBERTModel, name: str) -> None:
    query, text = PAIRS[name]
    markers = 1 if Path(model.name).name == "multi-vector" else 2
    query_tokens = offsets(model, query)
    whole = offsets(model, text)
    read = whole[: 40 - markers - 1]
    columns = [(0, 0)] * markers + [span for token, span in read if token not in string.punctuation] + [(0, 0)]
    vectors, passage = model.encode_queries([query])[0], model.encode_documents([text])[0]
    similarities = vectors.astype(np.float64) @ passage.astype(np.float64).T
    assert similarities.shape[1] == len(columns)

    explanation = model.explain(query, text)
    assert [(match.query_token, (match.query_start, match.query_end)) for match in explanation] == query_tokens
    for row, match in enumerate(explanation, start=markers):
        assert match.score == pytest.approx(similarities[row].max(), abs=1e-5)
        near = np.flatnonzero(similarities[row] > similarities[row].max() - 1e-5)
        assert any(columns[column] == (match.start, match.end) for column in near), match
    assert explanation.score == pytest.approx(similarities.max(axis=1).sum(), abs=1e-4)
    assert explanation.score == model.score(query, [text])[0]
    rows = slice(markers, markers + len(query_tokens))
    assert explanation.explained == pytest.approx(similarities[rows].max(axis=1).sum(), abs=1e-4)
    assert explanation.read_to == (read[-1][1][1] if len(whole) > len(read) else None)
    assert (explanation.query, explanation.text, explanation.model) == (query, text, model.name)
    assert explanation.query_read_to is None


def test_a_cut_query_reports_its_end(colbert_dir: Path) -> None:
    model = ColBERTModel(colbert_dir, dtype="float32", device="cpu", query_length=8)
    explanation = model.explain(LONG_TEXT, "a zip file")
    expected = offsets(model, LONG_TEXT)[:6]
    assert [(match.query_token, (match.query_start, match.query_end)) for match in explanation] == expected
    assert explanation.query_read_to == expected[-1][1][1]


@pytest.mark.parametrize("kind", ["XLMRobertaTokenizer", "RobertaTokenizer"])
def test_spans_exclude_the_blanks_and_the_prompt_of_other_tokenizers(tmp_path: Path, kind: str) -> None:
    path = write_multi_vector(tmp_path / "checkpoint")
    (path / "vocab.txt").unlink()
    tokenizer = unigram_tokenizer() if kind.startswith("XLM") else bpe_tokenizer()
    write_tokenizer(path, tokenizer, kind, ROBERTA_SPECIALS)
    config = path / "config_sentence_transformers.json"
    prompts = {"query": "query: ", "document": "passage: "}
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {"prompts": prompts}), "utf-8")
    query, text = "  read a zip file", "The directory of a  zip file is stored at its end."
    explanation = ColBERTModel(path, dtype="float32", device="cpu").explain(query, text)
    assert [word.query_word for word in explanation.words()] == query.split()
    for match in explanation:
        for token, piece in (
            (match.query_token, query[match.query_start : match.query_end]),
            (match.text_token, text[match.start : match.end]),
        ):
            # A blank alone stands for the start of the word after it.
            assert not piece or piece == token.lstrip("▁Ġ") or token in "▁Ġ"
            assert piece == piece.strip()


# --- as data ---


def test_an_explanation_is_a_sequence(colbert: ColBERTModel) -> None:
    explanation = colbert.explain("zip file", "a zip file")
    assert explanation == list(explanation) == [explanation[0], explanation[1]]
    assert list(explanation) == explanation
    assert explanation != list(explanation)[:1]
    assert explanation[:1] == [explanation[0]]
    assert explanation[-1] in explanation
    assert (len(explanation), explanation.index(explanation[1])) == (2, 1)
    assert explanation[::-1] == [explanation[1], explanation[0]]
    assert explanation == colbert.explain("zip file", "a zip file")
    assert explanation != colbert.explain("zip file", "a zip file.")
    assert pickle.loads(pickle.dumps(explanation)) == explanation
    assert not colbert.explain("  ", "text")


@pytest.mark.parametrize("name", PAIRS)
def test_an_explanation_becomes_json(colbert: ColBERTModel, name: str) -> None:
    explanation = colbert.explain(*PAIRS[name])
    record = json.loads(json.dumps(explanation.to_dict()), parse_constant=pytest.fail)
    assert record == explanation.to_dict()
    assert record["matches"] == [match.to_dict() for match in explanation]
    assert [word["query_word"] for word in record["words"]] == [word.query_word for word in explanation.words()]
    assert record["score"] == explanation.score


# --- words ---


def make_explanation(query: str, text: str, pieces: list[tuple[str, str, float]]) -> Explanation:
    """Return an explanation of the query's pieces in order, each with its piece of the text; "" is a marker."""
    matches, position = [], 0
    for query_piece, text_piece, score in pieces:
        position = query.index(query_piece, position)
        start = text.index(text_piece) if text_piece else 0
        token = text_piece or "[SEP]"
        query_end = position + len(query_piece)
        matches.append(TokenMatch(query_piece, token, score, start, start + len(text_piece), position, query_end))
        position = query_end
    return Explanation(query, text, "hand", sum(match.score for match in matches) + 1, tuple(matches))


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


# --- any item, any model ---


def test_explain_takes_what_rerank_takes(colbert: ColBERTModel) -> None:
    query, text = "zip file", "a zip file"
    expected = colbert.explain(query, text)
    items = [text, Passage("a", text), Hit("a", 0.5, 1, text), {"text": text, "id": "a"}]
    assert all(explain(query, item, colbert) == expected for item in items)
    assert explain(query, text, {"name_or_path": colbert.name, "dtype": "float32", "device": "cpu"}) == expected
    assert explain(query, text, Path(colbert.name)).matches


@pytest.mark.parametrize(
    ("query", "item", "expected"),
    [(" ", "text", "query is ' '"), ("q", 7, "type int"), ("q", {"id": "a"}, "'text'"), ("q", "\ud800", "Unicode")],
)
def test_bad_input_is_an_error(colbert: ColBERTModel, query: str, item: object, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        explain(query, item, colbert)  # type: ignore[arg-type]


def test_models_without_token_matches_are_refused(cross_encoder: CrossEncoderModel, colbert: ColBERTModel) -> None:
    with pytest.raises(InvalidInputError, match="CrossEncoderModel"):
        explain("q", "text", cross_encoder)  # type: ignore[arg-type]

    class Encoder:
        name, dim, fingerprint = "mine", 8, "0"
        options = encode_queries = encode_documents = lambda self, *_: []

    with pytest.raises(InvalidInputError, match="Encoder, which has no explain"):
        explain("q", "text", Encoder())  # type: ignore[arg-type]


# --- in a terminal ---

ESCAPES = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("colour", [False, True])
def test_no_control_character_reaches_the_terminal(model: ColBERTModel, name: str, colour: bool) -> None:
    shown = model.explain(*PAIRS[name]).to_text(colour=colour)
    assert colour == ("\x1b[" in shown)
    # The styles of the view are the only escape sequences.
    plain = ESCAPES.sub("", shown) if colour else shown
    assert not [char for char in plain if unicodedata.category(char) == "Cc" and char != "\n"]
    assert "\u202e" not in plain
    assert "31m" not in plain or "␛[31m" in plain


def test_the_table_the_marks_and_the_sum() -> None:
    explanation = make_explanation(
        "read archives", "Reads an archive.", [("read", "Read", 0.5), ("archive", "archive", 0.75)]
    )
    shown = explanation.to_text(60)
    assert re.search(r"│ read +│ Reads +│ +0\.50 │ █{5} +│ 0\.50 │", shown)
    assert re.search(r"│ archives +│ archive +│ +0\.75 │ █{8} +│ 0\.75 │", shown)
    assert "«Reads 0.50» an «archive 0.75»." in shown
    assert "MaxSim 2.250 = 1.250 from these words + 1.000" in shown.replace("\n", " ")
    coloured = explanation.to_text(60, colour=True)
    assert ESCAPES.sub("", coloured).endswith("Reads an archive.\n")
    assert re.search(r"\x1b\[[\d;]+mReads\x1b\[0m an \x1b\[[\d;]+marchive\x1b\[0m\.", coloured)
    assert all(len(line) <= 40 for line in explanation.to_text(40).splitlines())


def test_the_terminal_shows_only_the_part_of_a_text_that_was_read(colbert_dir: Path) -> None:
    explanation = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=12).explain(
        "fire", LONG_TEXT
    )
    shown = explanation.to_text(200)
    assert f"read {explanation.read_to} of the text's {len(LONG_TEXT):,} characters" in shown
    assert shown.rstrip().endswith("...")
    assert "monastery" not in shown


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_characters_that_the_terminal_lacks_are_no_error(colbert: ColBERTModel, name: str, encoding: str) -> None:
    stream = TextIOWrapper(BytesIO(), encoding=encoding, errors="strict")
    Console(file=stream, width=80).print(colbert.explain(*PAIRS[name]).render())
    stream.flush()
    assert b"MaxSim" in stream.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [19, 0, True, 40.0, "80"])
def test_a_bad_width_is_an_error(colbert: ColBERTModel, width: object) -> None:
    with pytest.raises(InvalidInputError, match="width is"):
        colbert.explain("zip", "a zip").to_text(width)  # type: ignore[arg-type]


# --- as a page ---

VOID = {"meta"}


class Page(HTMLParser):
    """Parsed page, which checks that elements are closed in order and collects their attributes and texts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(f"{tag}.{attributes.get('class', '')}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().split(".")[0] == tag

    def handle_data(self, data: str) -> None:
        for name in self.open:
            self.texts[name] = self.texts.get(name, "") + data


ATTACK = """</script></style></div></mark><b onclick="alert(1)">zip</b> & 'q' "q" &amp; <!-- x --> {style}"""


@pytest.mark.parametrize("name", [*PAIRS, "attack"])
def test_the_page_contains_both_texts_and_loads_nothing(model: ColBERTModel, name: str) -> None:
    query, text = PAIRS.get(name, (ATTACK, f"{ATTACK} {ENGLISH[2]} {CHINESE[0]}"))
    explanation = model.explain(query, text)
    html = explanation.to_html()
    assert html.startswith('<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">')
    page = Page(html)
    cleaned = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)
    assert page.texts.get("div.text", "") == cleaned
    assert page.texts.get("p.query", "") == query
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "b", "img", "link", "iframe", "a", "base", "object"}
    names = {name for _, attributes in page.elements for name in attributes}
    assert names <= {
        "charset", "name", "content", "http-equiv", "class", "id", "title", "dir", "tabindex", "scope", "style"
    }  # fmt: skip
    assert not re.search(r"(?:src|href|url|@import)\s*[=(]", re.sub("<main>.*", "", html, flags=re.DOTALL))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) == len(explanation.words())
    html.encode()


def test_the_page_shows_which_word_matched_which() -> None:
    explanation = make_explanation(
        "em beddings", "an embedding <i>", [("em", "em", 0.9), ("bed", "bedding", 0.3), ("dings", "", 0.1)]
    )
    page = Page(explanation.to_html())
    marks = [attributes for tag, attributes in page.elements if tag == "mark" and "title" in attributes]
    assert [(match.get("id"), match["class"], match["title"]) for match in marks] == [
        ("q0", "s5", "embedding 0.90"),
        ("q1", "s1", "embedding 0.30, ([SEP]) 0.10"),
        (None, "s5 q0 q1", "em 0.90, beddings 0.30 (bed 0.30)"),
    ]
    assert [attributes["dir"] for _, attributes in page.elements if "dir" in attributes] == ["auto", "auto"]
    assert "0.400" in page.texts["table.words"]
    assert "([SEP])" in page.texts["table.words"]


def test_the_page_marks_the_part_that_was_not_read(colbert_dir: Path) -> None:
    explanation = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=12).explain(
        "fire", LONG_TEXT
    )
    page = Page(explanation.to_html())
    assert explanation.read_to is not None
    assert page.texts["span.unread"] == LONG_TEXT[explanation.read_to :]
    assert page.texts["div.text"] == LONG_TEXT
