"""`ColBERTModel`: vectors of every checkpoint format, MaxSim, explanations, lengths and truncation."""

from __future__ import annotations

import json
import pickle
import string
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import DIM, write_multi_vector, write_pylate_colbert, write_stanford_colbert
from corpus import CHINESE, ENGLISH, LONG_TEXT, QUERIES, SENTENCES
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from rerank_integrations import ColBERTModel, InvalidInputError, TruncationWarning

FORMATS: dict[str, Callable[[Path], Path]] = {
    "multi-vector": write_multi_vector,
    "stanford": write_stanford_colbert,
    "pylate-v1": lambda path: write_pylate_colbert(path, flavour="v1"),
    "pylate-v3": lambda path: write_pylate_colbert(path, flavour="v3"),
}
TEXTS = [*ENGLISH[::9], *CHINESE[:4], "Hello, World! (really?) -- yes...", "Naïve CAFÉ", "a"]


@pytest.fixture(scope="module", params=FORMATS)
def any_colbert(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ColBERTModel:
    path = FORMATS[request.param](tmp_path_factory.mktemp("format") / request.param)
    return ColBERTModel(str(path), dtype="float32", device="cpu")


def tokens_of(model: ColBERTModel, text: str) -> list[str]:
    """Return the text's own tokens, without markers, from the tokenizer file alone."""
    tokenizer = Tokenizer.from_file(str(Path(model.name) / "tokenizer.json"))
    return list(tokenizer.encode(text, add_special_tokens=False).tokens)


def naive_maxsim(query: np.ndarray, passage: np.ndarray) -> float:
    similarities = np.einsum("qd,td->qt", query.astype(np.float64), passage.astype(np.float64))
    return float(similarities.max(axis=1).sum())


# --- vectors ---


def test_vectors_are_float32_unit_rows_of_the_models_dimension(any_colbert: ColBERTModel) -> None:
    assert any_colbert.dim == DIM
    for vectors in any_colbert.encode_queries(QUERIES) + any_colbert.encode_documents(TEXTS):
        assert vectors.dtype == np.float32
        assert vectors.ndim == 2
        assert vectors.shape[1] == DIM
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_documents_keep_every_token_but_punctuation(any_colbert: ColBERTModel) -> None:
    markers = 2 if any_colbert.name.endswith("multi-vector") else 3  # [CLS] and [SEP]; others add a [D] marker
    for text, vectors in zip(TEXTS, any_colbert.encode_documents(TEXTS), strict=True):
        kept = [token for token in tokens_of(any_colbert, text) if token not in string.punctuation]
        assert len(vectors) == len(kept) + markers, text


def test_queries_are_expanded_to_32_tokens_where_the_format_says_so(any_colbert: ColBERTModel) -> None:
    vectors = any_colbert.encode_queries(QUERIES)
    if any_colbert.name.endswith("multi-vector"):
        expected = [len(tokens_of(any_colbert, query)) + 2 for query in QUERIES]
    else:
        expected = [32] * len(QUERIES)
    assert [len(rows) for rows in vectors] == expected


def reference_pylate(path: Path, bert: BertModel, text: str, *, is_query: bool, length: int) -> np.ndarray:
    """Encode by PyLate's method in plain torch, one text at a time: marker id after [CLS], [MASK] unattended."""
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    number = tokenizer.token_to_id
    ids = tokenizer.encode(text, add_special_tokens=False).ids[: length - 3]
    ids = [number("[CLS]"), number("[Q] " if is_query else "[D] "), *ids, number("[SEP]")]
    attended = [1] * len(ids)
    if is_query:
        attended += [0] * (length - len(ids))
        ids += [number("[MASK]")] * (length - len(ids))
    projection = load_file(path / "1_Dense" / "model.safetensors")["linear.weight"]
    with torch.inference_mode():
        states = bert(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([attended])).last_hidden_state
        rows = torch.nn.functional.normalize(states[0] @ projection.T, dim=-1).numpy()
    punctuation = {number(symbol) for symbol in string.punctuation}
    return rows[[is_query or token not in punctuation for token in ids]]


@pytest.mark.parametrize("flavour", ["v1", "v3"])
def test_pylate_vectors_equal_its_recipe_in_plain_torch(tmp_path: Path, flavour: str) -> None:
    path = FORMATS[f"pylate-{flavour}"](tmp_path)
    bert = BertModel(BertConfig.from_json_file(path / "config.json")).eval()
    bert.load_state_dict(load_file(path / "model.safetensors"))
    model = ColBERTModel(path, dtype="float32", device="cpu")
    with pytest.warns(TruncationWarning):
        queries = model.encode_queries([*QUERIES, LONG_TEXT])
        documents = model.encode_documents([*TEXTS, LONG_TEXT])
    for text, vectors in zip([*QUERIES, LONG_TEXT], queries, strict=True):
        np.testing.assert_allclose(vectors, reference_pylate(path, bert, text, is_query=True, length=32), atol=1e-5)
    for text, vectors in zip([*TEXTS, LONG_TEXT], documents, strict=True):
        np.testing.assert_allclose(vectors, reference_pylate(path, bert, text, is_query=False, length=180), atol=1e-5)


def test_native_vectors_equal_those_of_sentence_transformers(colbert: ColBERTModel, colbert_dir: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    reference = MultiVectorEncoder(str(colbert_dir), device="cpu")
    for ours, theirs in [
        (colbert.encode_queries(QUERIES), reference.encode_query(list(QUERIES), convert_to_numpy=True)),
        (colbert.encode_documents(TEXTS), reference.encode_document(TEXTS, convert_to_numpy=True)),
    ]:
        for vectors, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_sentence_transformers_names_give_its_shapes_and_vectors(colbert: ColBERTModel, colbert_dir: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    reference = MultiVectorEncoder(str(colbert_dir), device="cpu")
    for ours, theirs in [
        (colbert.encode_query, reference.encode_query),
        (colbert.encode_document, reference.encode_document),
    ]:
        alone, expected = ours(TEXTS[0]), theirs(TEXTS[0], convert_to_numpy=True)
        assert isinstance(alone, np.ndarray)
        assert alone.dtype == expected.dtype
        np.testing.assert_allclose(alone, expected, atol=1e-5)
        several = ours(TEXTS, batch_size=2, show_progress_bar=False, convert_to_numpy=True)
        expected_several = theirs(TEXTS, batch_size=2, show_progress_bar=False, convert_to_numpy=True)
        assert isinstance(several, list)
        for vectors, same in zip(several, expected_several, strict=True):
            np.testing.assert_allclose(vectors, same, atol=1e-5)
        assert ours([]) == theirs([], convert_to_numpy=True) == []


def test_the_two_ways_to_encode_are_equal_to_the_last_bit(colbert: ColBERTModel) -> None:
    for one_name, other_name in [
        (colbert.encode_query(QUERIES), colbert.encode_queries(QUERIES)),
        (colbert.encode_document(TEXTS), colbert.encode_documents(TEXTS)),
    ]:
        for vectors, same in zip(one_name, other_name, strict=True):
            np.testing.assert_array_equal(vectors, same)


@pytest.mark.parametrize(
    ("inputs", "arguments", "match"),
    [
        (["a", 7], {}, "int"),
        (["a", None], {}, "NoneType"),
        ("a", {"batch_size": 0}, "batch_size is 0"),
        ("a", {"convert_to_numpy": False}, "convert_to_numpy is False"),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    colbert: ColBERTModel, inputs: object, arguments: dict[str, object], match: str
) -> None:
    for encode in (colbert.encode_query, colbert.encode_document):
        with pytest.raises(InvalidInputError, match=match):
            encode(inputs, **arguments)  # type: ignore[call-overload]


def test_old_weight_files_load_like_new_ones(tmp_path: Path) -> None:
    """Early checkpoints contain pytorch_model.bin, colbertv2.0's first revision among them."""
    new = write_stanford_colbert(tmp_path / "new")
    old = write_stanford_colbert(tmp_path / "old")
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    expected = ColBERTModel(new, dtype="float32", device="cpu").encode_documents(TEXTS)
    for vectors, same in zip(
        ColBERTModel(old, dtype="float32", device="cpu").encode_documents(TEXTS), expected, strict=True
    ):
        np.testing.assert_array_equal(vectors, same)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_vector_does_not_depend_on_its_batch(any_colbert: ColBERTModel, batch_size: int) -> None:
    small = ColBERTModel(any_colbert.name, dtype="float32", device="cpu", batch_size=batch_size)
    texts = [*SENTENCES[::5], " ".join(ENGLISH[:7])]
    together = any_colbert.encode_documents(texts)
    for text, vectors, apart in zip(texts, together, small.encode_documents(texts[::-1])[::-1], strict=True):
        np.testing.assert_allclose(vectors, apart, atol=1e-5, err_msg=text)


def test_bfloat16_stays_close_to_float32_and_in_unit_length(colbert_dir: Path, colbert: ColBERTModel) -> None:
    half = ColBERTModel(colbert_dir, dtype="bfloat16", device="cpu")
    for vectors, exact in zip(half.encode_documents(TEXTS), colbert.encode_documents(TEXTS), strict=True):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert (vectors * exact).sum(axis=1).min() > 0.99


def test_empty_inputs_have_natural_answers(any_colbert: ColBERTModel) -> None:
    assert any_colbert.encode_documents([]) == []
    assert any_colbert.encode_queries([]) == []
    assert any_colbert.score("a question", []) == []
    empty, blank = any_colbert.encode_documents(["", "  \n\t"])
    # Of one batch; a BLAS may round its rows differently.
    np.testing.assert_allclose(empty, blank, atol=1e-6)
    assert len(empty) == len(any_colbert.encode_documents([","])[0])  # nothing but markers


@pytest.mark.parametrize("texts", ["one string", [1], [None], ["fine", b"bytes"]])
def test_anything_but_a_list_of_strings_is_refused(colbert: ColBERTModel, texts: object) -> None:
    for call in (colbert.encode_documents, colbert.encode_queries, lambda bad: colbert.score("a query", bad)):
        with pytest.raises(InvalidInputError, match=r"str"):
            call(texts)  # type: ignore[operator]


# --- scores ---


def test_score_equals_a_naive_maxsim(any_colbert: ColBERTModel) -> None:
    for query in QUERIES[::4]:
        query_vectors = any_colbert.encode_queries([query])[0]
        expected = [naive_maxsim(query_vectors, vectors) for vectors in any_colbert.encode_documents(TEXTS)]
        scores = any_colbert.score(query, TEXTS)
        assert all(type(score) is float for score in scores)
        assert scores == pytest.approx(expected, abs=1e-4)


def test_equal_texts_score_equal_to_the_last_bit(any_colbert: ColBERTModel) -> None:
    scores = any_colbert.score(QUERIES[0], [ENGLISH[3], *SENTENCES, ENGLISH[3]])
    assert scores[0] == scores[-1] == scores[1 + 3]


# --- explain ---


def plain(text: str) -> str:
    """Return the text in lower case without accents, as the tokenizer sees it."""
    decomposed = unicodedata.normalize("NFD", text.lower())
    return "".join(char for char in decomposed if unicodedata.category(char) != "Mn")


PAIRS = [
    ("read a zip file", "The directory of a zip file is stored at its end."),
    ("READ a ZIP file?", "Zip FILES, (zip) archives; and ZIP again!"),
    ("中国的首都", "北京是中国的首都。"),
    ("a naïve tourist", "The CAFÉ on the corner serves crème brûlée to naïve tourists."),
    ("extracting photographs", "Compression makes text much smaller, but photographs hardly shrink."),
    ("profit", "  Net\tprofit\n\n grew — by 12% "),
]


@pytest.mark.parametrize(("query", "text"), PAIRS)
def test_explain_agrees_with_an_argmax_over_the_vectors(any_colbert: ColBERTModel, query: str, text: str) -> None:
    matches = any_colbert.explain(query, text)
    query_tokens = tokens_of(any_colbert, query)
    assert [match.query_token for match in matches] == query_tokens

    markers = 1 if any_colbert.name.endswith("multi-vector") else 2
    text_tokens: list[str | None] = [token for token in tokens_of(any_colbert, text) if token not in string.punctuation]
    text_tokens = [*[None] * markers, *text_tokens, None]
    similarities = any_colbert.encode_queries([query])[0] @ any_colbert.encode_documents([text])[0].T
    assert similarities.shape[1] == len(text_tokens)
    for place, match in enumerate(matches):
        row = similarities[markers + place]
        assert match.score == pytest.approx(float(row.max()), abs=1e-5)
        expected = text_tokens[int(row.argmax())]
        if expected is None:
            assert (match.start, match.end) == (0, 0)
        else:
            assert match.text_token == expected


@pytest.mark.parametrize(("query", "text"), PAIRS)
def test_explained_spans_point_at_the_matched_characters(any_colbert: ColBERTModel, query: str, text: str) -> None:
    inside = [match for match in any_colbert.explain(query, text) if match.end]
    for match in inside:
        assert plain(text[match.start : match.end]) == match.text_token.removeprefix("##")


@pytest.mark.parametrize("text", [ENGLISH[12], CHINESE[1], "Naïve CAFÉ, (brûlée)!"])
def test_a_text_explains_itself_token_by_token(colbert: ColBERTModel, text: str) -> None:
    """Without markers and expansion, query and document vectors of one text are the same."""
    encoding = Tokenizer.from_file(str(Path(colbert.name) / "tokenizer.json")).encode(text, add_special_tokens=False)
    for match, token, span in zip(colbert.explain(text, text), encoding.tokens, encoding.offsets, strict=True):
        if token not in string.punctuation:
            assert (match.query_token, match.text_token, match.start, match.end) == (token, token, *span)
            assert match.score == pytest.approx(1, abs=1e-5)


def test_explain_of_a_cut_text_stays_inside_what_was_read(colbert_dir: Path) -> None:
    model = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=16)
    matches = model.explain("old library fire", LONG_TEXT)
    first_tokens = Tokenizer.from_file(str(colbert_dir / "tokenizer.json")).encode(LONG_TEXT).offsets[:15]
    assert matches
    assert max(match.end for match in matches) <= first_tokens[-1][1]


def test_explain_gives_json(colbert: ColBERTModel) -> None:
    match = colbert.explain("zip", "a zip file")[0]
    assert json.loads(json.dumps(match.to_dict())) == match.to_dict()


# --- lengths and truncation ---


def test_truncation_is_told_once_with_counts(colbert_dir: Path) -> None:
    model = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=24, query_length=8)
    with pytest.warns(TruncationWarning) as told:
        vectors = model.encode_documents([LONG_TEXT, "short", LONG_TEXT + "!"])
    assert len(told) == 1
    message = str(told[0].message)
    assert "2 of 3" in message
    assert "24" in message
    assert "document_length" in message
    assert len(vectors[0]) <= 24
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_documents([LONG_TEXT])
    with pytest.warns(TruncationWarning, match="query_length"):
        assert len(model.encode_queries([LONG_TEXT])[0]) == 8


def test_nothing_is_told_of_texts_that_fit(any_colbert: ColBERTModel) -> None:
    fresh = ColBERTModel(any_colbert.name, dtype="float32", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh.encode_documents(list(SENTENCES))
        fresh.encode_queries(list(QUERIES))


def test_a_text_is_cut_from_one_token_past_the_limit_on(colbert_dir: Path) -> None:
    model = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(model.encode_documents(["cat " * 28])[0]) == 30  # with [CLS] and [SEP]
    with pytest.warns(TruncationWarning, match="1 of 1"):
        assert len(model.encode_documents(["cat " * 29])[0]) == 30


def test_the_checkpoints_own_lengths_hold(any_colbert: ColBERTModel) -> None:
    words = "the cat sat on the mat and washed its face " * 40
    fresh = ColBERTModel(any_colbert.name, dtype="float32", device="cpu")
    with pytest.warns(TruncationWarning, match="180"):
        assert [len(vectors) for vectors in fresh.encode_documents([words])] == [180]


@pytest.mark.parametrize("length", [16, 40])
def test_lengths_are_the_callers_choice(any_colbert: ColBERTModel, length: int) -> None:
    words = "the cat sat on the mat and washed its face " * 40
    model = ColBERTModel(
        any_colbert.name, dtype="float32", device="cpu", query_length=length, document_length=length + 200
    )
    with pytest.warns(TruncationWarning):
        assert len(model.encode_queries([words])[0]) == length
        assert len(model.encode_documents([words])[0]) == length + 200


def test_lengths_of_instances_that_share_a_copy_do_not_meet(any_colbert: ColBERTModel) -> None:
    """The fixture and these two instances share one loaded copy."""
    words = "the cat sat on the mat and washed its face " * 40
    name = any_colbert.name
    short = ColBERTModel(name, dtype="float32", device="cpu", document_length=20, query_length=10)
    middle = ColBERTModel(name, dtype="float32", device="cpu", document_length=50, query_length=12)
    with pytest.warns(TruncationWarning):
        for _ in range(2):
            assert len(short.encode_documents([words])[0]) == 20
            assert len(middle.encode_documents([words])[0]) == 50
            assert len(any_colbert.encode_documents([words])[0]) == 180
            assert len(short.encode_queries([words])[0]) == 10
            assert len(middle.encode_queries([words])[0]) == 12


def test_no_text_is_read_past_the_encoders_positions(colbert_dir: Path) -> None:
    model = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=5000)
    words = "the cat sat on the mat and washed its face " * 80
    with pytest.warns(TruncationWarning, match="512"):
        assert len(model.encode_documents([words])[0]) == 512


# --- identity ---


def test_fingerprint_names_the_vector_space(tmp_path: Path, colbert_dir: Path) -> None:
    names = {
        kind: ColBERTModel(write(tmp_path / kind)).fingerprint
        for kind, write in {
            "first": write_multi_vector,
            "same": write_multi_vector,
            "other": lambda path: write_multi_vector(path, seed=99),
            "stanford": write_stanford_colbert,
        }.items()
    }
    assert names["first"] == names["same"]
    assert len(set(names.values())) == 3
    assert ColBERTModel(colbert_dir, dtype="bfloat16").fingerprint == ColBERTModel(colbert_dir).fingerprint


def test_a_model_is_rebuilt_from_its_options_and_from_a_pickle(colbert_dir: Path, colbert: ColBERTModel) -> None:
    model = ColBERTModel(
        colbert_dir,
        dtype="float32",
        device="cpu",
        query_length=20,
        document_length=64,
        batch_size=4,
        token="hf_secret",
    )
    options = json.loads(json.dumps(model.options()))
    assert options == {
        "name_or_path": str(colbert_dir),
        "dtype": "float32",
        "device": "cpu",
        "query_length": 20,
        "document_length": 64,
        "batch_size": 4,
    }
    copies = [ColBERTModel(**options), pickle.loads(pickle.dumps(model))]
    for copy in copies:
        assert copy.options() == options
        assert copy.name == str(colbert_dir)
        assert copy.score(QUERIES[0], TEXTS[:3]) == model.score(QUERIES[0], TEXTS[:3])
    assert len(pickle.dumps(colbert)) < 2000  # no weights
    assert b"hf_secret" not in pickle.dumps(model)
    assert "hf_secret" not in repr(model)


class WithALog(ColBERTModel):
    """A user's subclass, whose constructor has other arguments than `options` returns."""

    def __init__(self, path: Path, log: list[str]) -> None:
        super().__init__(path, dtype="float32", device="cpu")
        self.log = log


def test_a_subclass_with_its_own_constructor_is_rebuilt_as_the_class_of_the_package(colbert_dir: Path) -> None:
    model = WithALog(colbert_dir, ["first"])
    assert model.options() == {"name_or_path": str(colbert_dir), "dtype": "float32", "device": "cpu"}
    copy = pickle.loads(pickle.dumps(model))
    assert type(copy) is ColBERTModel
    assert copy.options() == model.options()


@pytest.mark.parametrize(
    "arguments",
    [
        {"name_or_path": ""},
        {"name_or_path": 7},
        {"dtype": "float99"},
        {"backend": "tensorrt"},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"query_length": 1},
        {"document_length": -5},
        {"document_length": True},
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=str(next(iter(arguments.values()))) or "''"):
        ColBERTModel(**arguments)  # type: ignore[arg-type]
