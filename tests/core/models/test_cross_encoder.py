"""`CrossEncoderModel`: the scores of sentence-transformers, for every family, on every scale."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES, write_cross_encoder
from corpus import CHINESE, ENGLISH, LONG_TEXT, QUERIES
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder

from rerank_integrations import CrossEncoderModel, InvalidInputError, TruncationWarning

TEXTS = [
    *ENGLISH[::8],
    *CHINESE[::3],
    LONG_TEXT,
    " ".join(ENGLISH[:9]),
    " ".join(ENGLISH[20:24]),
    "a",
    "",
    "?!... --",
    "Naïve CAFÉ",
]

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")


@pytest.fixture(scope="module", params=FAMILIES)
def family_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("family") / request.param, request.param)


def model_of(path: Path, **arguments: object) -> CrossEncoderModel:
    return CrossEncoderModel(path, dtype="float32", device="cpu", **arguments)  # type: ignore[arg-type]


def test_raw_scores_are_the_logits_of_sentence_transformers(family_dir: Path) -> None:
    reference = CrossEncoder(str(family_dir), device="cpu")
    model = model_of(family_dir, activation="raw")
    for query in QUERIES[2:4]:
        expected = reference.predict([(query, text) for text in TEXTS], activation_fn=torch.nn.Identity())
        scores = model.score(query, TEXTS)
        assert all(type(score) is float for score in scores)
        assert scores == pytest.approx(expected.tolist(), abs=1e-5)
        assert len({round(score, 4) for score in scores}) > len(TEXTS) // 2  # not one number for all


def test_sigmoid_is_the_sigmoid_of_raw(family_dir: Path) -> None:
    raw = model_of(family_dir, activation="raw").score(QUERIES[0], TEXTS)
    scores = model_of(family_dir, activation="sigmoid").score(QUERIES[0], TEXTS)
    assert scores == pytest.approx([1 / (1 + math.exp(-logit)) for logit in raw], abs=1e-12)


def test_model_is_the_default_of_sentence_transformers(family_dir: Path) -> None:
    expected = CrossEncoder(str(family_dir), device="cpu").predict([(QUERIES[1], text) for text in TEXTS])
    assert model_of(family_dir).score(QUERIES[1], TEXTS) == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("recorded", "activation"),
    [
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, math.tanh),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.ReLU"}, lambda x: max(x, 0.0)),
        ({}, lambda x: 1 / (1 + math.exp(-x))),
    ],
    ids=["recorded today", "recorded before version 4", "not recorded"],
)
def test_model_takes_the_recorded_activation(tmp_path: Path, recorded: dict[str, object], activation) -> None:  # type: ignore[no-untyped-def]
    path = write_cross_encoder(tmp_path, "bert")
    config = json.loads((path / "config.json").read_text())
    del config["sentence_transformers"]
    (path / "config.json").write_text(json.dumps(config | recorded))
    raw = model_of(path, activation="raw").score(QUERIES[0], TEXTS)
    assert model_of(path).score(QUERIES[0], TEXTS) == pytest.approx([activation(logit) for logit in raw], abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_score_does_not_depend_on_its_batch(family_dir: Path, batch_size: int) -> None:
    texts = TEXTS[:12] + TEXTS[-4:]
    together = model_of(family_dir).score(QUERIES[2], texts)
    apart = model_of(family_dir, batch_size=batch_size).score(QUERIES[2], texts[::-1])[::-1]
    assert apart == pytest.approx(together, abs=1e-5)


def test_equal_texts_score_equal_to_the_last_bit(cross_encoder: CrossEncoderModel) -> None:
    scores = cross_encoder.score(QUERIES[0], [ENGLISH[3], *TEXTS, ENGLISH[3]])
    assert scores[0] == scores[-1]


def test_predict_has_the_shapes_and_scores_of_sentence_transformers(family_dir: Path) -> None:
    reference = CrossEncoder(str(family_dir), device="cpu")
    model = model_of(family_dir)
    pairs = [(QUERIES[number % 2], text) for number, text in enumerate(TEXTS)]
    scores, expected = model.predict(pairs), reference.predict(pairs)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == expected.dtype
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(model.predict([list(pair) for pair in pairs], batch_size=2), expected, atol=1e-5)
    for pair in (pairs[0], list(pairs[0])):
        alone, expected_alone = model.predict(pair), reference.predict(pair)
        assert type(alone) is type(expected_alone) is np.float32
        assert alone == pytest.approx(expected_alone, abs=1e-5)
    assert len(model.predict([])) == len(reference.predict([])) == 0


def test_rank_has_the_rows_of_sentence_transformers(family_dir: Path) -> None:
    reference = CrossEncoder(str(family_dir), device="cpu")
    model = model_of(family_dir)
    texts = TEXTS[:8]
    for arguments in (
        {},
        {"top_k": 3},
        {"top_k": 0},
        {"return_documents": True},
        {"top_k": 2, "return_documents": True},
    ):
        rows = model.rank(QUERIES[1], texts, **arguments)
        expected = reference.rank(QUERIES[1], texts, **arguments)
        assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in expected], abs=1e-5)
        assert [row.get("text") for row in rows] == [row.get("text") for row in expected]
        assert [row["corpus_id"] for row in rows] == [row["corpus_id"] for row in expected]
        assert all(
            type(row["score"]) is float and list(row) == list(same) for row, same in zip(rows, expected, strict=True)
        )
    assert model.rank(QUERIES[1], []) == []


def test_rank_leaves_equal_texts_in_their_order(cross_encoder: CrossEncoderModel) -> None:
    rows = cross_encoder.rank(QUERIES[0], [TEXTS[2], TEXTS[1], TEXTS[2]])
    same = [row["corpus_id"] for row in rows if row["corpus_id"] != 1]
    assert same == [0, 2]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda model: model.predict("q"), "predict was given 'q'"),
        (lambda model: model.predict([("q", "a", "b")]), "predict was given"),
        (lambda model: model.predict([("q", 7)]), "int"),
        (lambda model: model.predict(("q", "a"), convert_to_numpy=False), "convert_to_numpy is False"),
        (lambda model: model.predict(("q", "a"), batch_size=0), "batch_size is 0"),
        (lambda model: model.rank("q", "a"), "one string"),
        (lambda model: model.rank(None, ["a"]), "NoneType"),
        (lambda model: model.rank("q", ["a"], top_k=-1), "top_k is -1"),
    ],
)
def test_what_cannot_be_predicted_or_ranked_is_refused(
    cross_encoder: CrossEncoderModel, call: Callable[[CrossEncoderModel], object], match: str
) -> None:
    with pytest.raises(InvalidInputError, match=match):
        call(cross_encoder)


def test_old_weight_files_load_like_new_ones(tmp_path: Path, cross_encoder: CrossEncoderModel) -> None:
    path = write_cross_encoder(tmp_path)
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    # Where weights lie in memory decides the last bit of a product on some processors.
    assert model_of(path).score(QUERIES[0], TEXTS) == pytest.approx(cross_encoder.score(QUERIES[0], TEXTS), abs=1e-6)


def test_a_checkpoint_saved_by_sentence_transformers_loads(tmp_path: Path, cross_encoder_dir: Path) -> None:
    """Version 6 writes modules.json and its own configuration beside the classifier."""
    reference = CrossEncoder(str(cross_encoder_dir), device="cpu")
    reference.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert (tmp_path / "saved" / "modules.json").is_file()
    expected = reference.predict([(QUERIES[0], text) for text in TEXTS])
    assert model_of(tmp_path / "saved").score(QUERIES[0], TEXTS) == pytest.approx(expected.tolist(), abs=1e-5)


def test_no_texts_no_scores(cross_encoder: CrossEncoderModel) -> None:
    assert cross_encoder.score(QUERIES[0], []) == []


@pytest.mark.parametrize(("query", "texts"), [("q", "one string"), ("q", [1]), (None, ["a"]), ("q", [None, "a"])])
def test_anything_but_strings_is_refused(cross_encoder: CrossEncoderModel, query: object, texts: object) -> None:
    with pytest.raises(InvalidInputError, match="str"):
        cross_encoder.score(query, texts)  # type: ignore[arg-type]


def test_max_length_cuts_as_sentence_transformers_does(family_dir: Path) -> None:
    reference = CrossEncoder(str(family_dir), device="cpu", max_length=40)
    expected = reference.predict([(QUERIES[0], text) for text in TEXTS], activation_fn=torch.nn.Identity())
    scores = model_of(family_dir, max_length=40, activation="raw").score(QUERIES[0], TEXTS)
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(("max_length", "remedy"), [(100_000, "reads no more than 512"), (40, "raise max_length")])
def test_the_warning_names_a_remedy_that_is_left(cross_encoder_dir: Path, max_length: int, remedy: str) -> None:
    model = CrossEncoderModel(cross_encoder_dir, max_length=max_length, device="cpu")
    with pytest.warns(TruncationWarning, match=remedy) as warned:
        model.score("a query", ["word " * 4000])
    assert ("raise max_length" in str(warned[0].message)) == (max_length < 512)
    assert warned[0].filename == __file__
    model.unload()


def test_max_length_of_instances_that_share_a_copy_do_not_meet(cross_encoder_dir: Path) -> None:
    short, long = model_of(cross_encoder_dir, max_length=24), model_of(cross_encoder_dir)
    serial = short.score(QUERIES[0], [LONG_TEXT]), long.score(QUERIES[0], [LONG_TEXT])
    assert serial[0] != serial[1]
    assert (short.score(QUERIES[0], [LONG_TEXT]), long.score(QUERIES[0], [LONG_TEXT])) == serial


@pytest.mark.filterwarnings("default::rerank_integrations.TruncationWarning")
def test_truncation_is_told_once_with_counts(cross_encoder_dir: Path) -> None:
    model = model_of(cross_encoder_dir, max_length=64)
    with pytest.warns(TruncationWarning) as told:
        model.score(QUERIES[0], [LONG_TEXT, "short", LONG_TEXT + "!"])
    assert len(told) == 1
    assert "2 of 3" in str(told[0].message)
    assert "64" in str(told[0].message)
    assert "max_length" in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score(QUERIES[0], [LONG_TEXT])


@pytest.mark.filterwarnings("error::rerank_integrations.TruncationWarning")
def test_nothing_is_told_of_texts_that_fit(family_dir: Path) -> None:
    model_of(family_dir).score(QUERIES[0], [*ENGLISH[:20], *CHINESE])


def test_a_model_is_rebuilt_from_its_options_and_from_a_pickle(cross_encoder_dir: Path) -> None:
    model = model_of(cross_encoder_dir, activation="raw", max_length=100, token="hf_secret")
    options = json.loads(json.dumps(model.options()))
    assert options == {
        "name_or_path": str(cross_encoder_dir),
        "dtype": "float32",
        "device": "cpu",
        "activation": "raw",
        "max_length": 100,
    }
    for copy in (CrossEncoderModel(**options), pickle.loads(pickle.dumps(model))):
        assert copy.options() == options
        assert copy.score(QUERIES[0], TEXTS) == model.score(QUERIES[0], TEXTS)
    assert b"hf_secret" not in pickle.dumps(model)


@pytest.mark.parametrize(
    "arguments",
    [{"activation": "softmax"}, {"max_length": 0}, {"dtype": "int4"}, {"batch_size": "many"}, {"name_or_path": None}],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=str(next(iter(arguments.values())))):
        CrossEncoderModel(**arguments)  # type: ignore[arg-type]
