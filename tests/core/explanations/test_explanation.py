"""Explanations, compared with a similarity matrix of the encoded vectors."""

from __future__ import annotations

import json
import pickle
import string
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_multi_vector
from checkpoints.vocabulary import ROBERTA_SPECIALS, bpe_tokenizer, unigram_tokenizer, write_tokenizer
from corpus import LONG_TEXT
from explained_texts import PAIRS
from tokenizers import Tokenizer

from rerank_integrations import ColBERTModel

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")


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
