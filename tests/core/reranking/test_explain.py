"""`explain`: any item that `rerank` takes, any ColBERT model."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_integrations import ColBERTModel, CrossEncoderModel, Hit, InvalidInputError, Passage, explain

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")


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
