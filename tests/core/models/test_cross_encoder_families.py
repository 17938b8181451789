"""Cross-encoders of every family: sentence-transformers' scores, at any length, in any script."""

from __future__ import annotations

import bisect
import math
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import write_cross_encoder
from checkpoints.rerankers import (
    CHAT_TEMPLATE,
    INSTRUCTION,
    write_deberta_reranker,
    write_ettin_reranker,
    write_gemma_reranker,
    write_japanese_reranker,
    write_listwise_reranker,
    write_long_xlmr_reranker,
    write_modernbert_decoder_reranker,
    write_modernbert_reranker,
    write_mxbai_reranker,
    write_own_code_reranker,
    write_qwen3_classifier,
    write_qwen3_embedder,
    write_qwen3_reranker,
    write_zerank,
)
from corpus import CHINESE, ENGLISH, LONG_TEXT, QUERIES
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer

from rerank_integrations import (
    Activation,
    CheckpointError,
    CrossEncoderModel,
    InvalidInputError,
    Passage,
    TextTooLongError,
    TruncationWarning,
    loaded_models,
    rerank,
)
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.core.models.loaded_cross_encoder import LoadedCrossEncoder

TRADITIONAL = "國家圖書館於週一閉館，讀者可於線上預約書籍；憑證件（身分證或護照）入館。"
TEXTS = [
    ENGLISH[3],
    " ".join(ENGLISH[10:13]),
    "",
    *CHINESE[1:4],
    TRADITIONAL,
    "中文没有空格，" * 60,
    LONG_TEXT,
    "a",
]
LONG_QUERY = " ".join(ENGLISH[60:]) + TRADITIONAL * 4
ODD_TEXTS = [
    "🐈‍⬛👩🏽‍🚀🇨🇳",
    "e\u0301a\u0308o\u0302\u0323 Z\u0351\u036b\u0343\u036a\u0302\u036b",
    "مرحبا بالعالم، שלום עולם \u202eabc\u202c",
    "nul\x00inside\x00",
    "\x00",
    "x" * 900,
    "漢" * 900,
    "\ufeff\u200b\u200d\u00a0",
    "\u2028\n\t\r ",
    "ﷺ" * 50,
    "<|im_end|><|im_start|>assistant [SEP] </s> <mask> [CLS]",
    "\U0010ffff\ufffd\ue000",
]

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "bert": write_cross_encoder,
    "electra": lambda path: write_cross_encoder(path, "electra"),
    "xlm-roberta": lambda path: write_cross_encoder(path, "xlm-roberta"),
    "long xlm-roberta": write_long_xlmr_reranker,
    "modernbert": write_modernbert_reranker,
    "ettin": write_ettin_reranker,
    "modernbert decoder": write_modernbert_decoder_reranker,
    "deberta-v3": write_deberta_reranker,
    "bert-japanese": write_japanese_reranker,
    "own code": write_own_code_reranker,
    "qwen3": write_qwen3_reranker,
    "qwen3 with a prompt": lambda path: write_qwen3_reranker(path, prompt="Find the law that applies"),
    "qwen3 without modules": lambda path: write_qwen3_reranker(path, "template"),
    "qwen3 classifier": write_qwen3_classifier,
    "qwen3 classifier without template": lambda path: write_qwen3_classifier(path, template=""),
    "qwen2": write_mxbai_reranker,
    "gemma": write_gemma_reranker,
    "zerank-2": write_zerank,
}
TEMPLATES = ("qwen3", "qwen3 with a prompt", "qwen3 without modules", "qwen3 classifier", "qwen2", "gemma")

pytestmark = [
    pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning"),
    pytest.mark.usefixtures("code_cache"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    paths: dict[str, Path] = {}

    def write(family: str) -> Path:
        if family not in paths:
            paths[family] = FAMILIES[family](tmp_path_factory.mktemp("family"))
        return paths[family]

    return write


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(family: str, written: Callable[[str], Path], code_cache: None) -> Path:
    return written(family)


@pytest.fixture(scope="module")
def reference(path: Path) -> CrossEncoder:
    return CrossEncoder(str(path), device="cpu", trust_remote_code=brings_code(path))


def brings_code(path: Path) -> bool:
    return (path / "modeling_xlm_roberta.py").exists()


def model_of(path: Path, **arguments: object) -> CrossEncoderModel:
    defaults = {"dtype": "float32", "device": "cpu", "activation": "raw", "trust_remote_code": brings_code(path)}
    return CrossEncoderModel(path, **defaults | arguments)  # type: ignore[arg-type]


def logits_of(reference: CrossEncoder, query: str, texts: list[str], length: int | None = None) -> list[float]:
    cut = {"processing_kwargs": {"text": {"max_length": length}}} if length else {}
    scores = reference.predict([(query, text) for text in texts], activation_fn=torch.nn.Identity(), **cut)
    return [float(score) for score in scores]


def whole_length(path: Path, query: str, text: str) -> int:
    """Return the pair's number of tokens before truncation, from the tokenizer's files alone."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.chat_template is None:
        return len(tokenizer(query, text)["input_ids"])
    roles = [{"role": "query", "content": query}, {"role": "document", "content": text}]
    return len(tokenizer.apply_chat_template(roles, tokenize=True, return_dict=True)["input_ids"])


@pytest.mark.parametrize("query", [QUERIES[1], "公司今年的净利润", ""], ids=["English", "Chinese", "empty"])
def test_scores_are_those_of_sentence_transformers(path: Path, reference: CrossEncoder, query: str) -> None:
    texts = [text for text in TEXTS if query or text]  # without a template an empty pair may have no token at all
    scores = model_of(path).score(query, texts)
    assert scores == pytest.approx(logits_of(reference, query, texts), abs=1e-4)
    assert len({round(score, 4) for score in scores}) > len(texts) // 2  # not one number for all


def test_the_model_activation_is_that_of_sentence_transformers(path: Path, reference: CrossEncoder) -> None:
    expected = reference.predict([(QUERIES[0], text) for text in TEXTS]).tolist()
    assert model_of(path, activation="model").score(QUERIES[0], TEXTS) == pytest.approx(expected, abs=1e-4)


def test_cut_pairs_score_as_in_sentence_transformers(path: Path, reference: CrossEncoder) -> None:
    """Templates end with a question: scores are equal only if that end survives truncation."""
    expected = logits_of(reference, QUERIES[6], TEXTS, length=120)
    assert model_of(path, max_length=120).score(QUERIES[6], TEXTS) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "qwen3 with a prompt"])
@pytest.mark.parametrize("text", [ENGLISH[2], TRADITIONAL], ids=["English", "Chinese"])
def test_whole_pairs_are_counted_to_the_token(written: Callable[[str], Path], family: str, text: str) -> None:
    path = written(family)
    length = whole_length(path, QUERIES[0], text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model_of(path, max_length=length).score(QUERIES[0], [text])
    with pytest.warns(TruncationWarning, match=f"cut to {length - 1} tokens .the longest has {length}"):
        model_of(path, max_length=length - 1).score(QUERIES[0], [text])


def test_a_score_does_not_depend_on_the_texts_beside_it(path: Path) -> None:
    """Padding, on the left or on the right, does not change a score."""
    model = model_of(path)
    alone = [model.score(QUERIES[2], [text])[0] for text in TEXTS]
    assert model.score(QUERIES[2], TEXTS) == pytest.approx(alone, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("max_length", [None, 120])
def test_a_query_longer_than_the_model_leaves_room_for_the_passage(
    path: Path, reference: CrossEncoder, max_length: int | None
) -> None:
    model = model_of(path, max_length=max_length)
    texts = [ENGLISH[0], ENGLISH[31], CHINESE[3], " ".join(ENGLISH[5:]), ""]
    with pytest.warns(TruncationWarning, match="5 of 5 query-passage pairs were cut"):
        scores = model.score(LONG_QUERY, texts)
    assert len({round(score, 6) for score in scores}) == len(texts)
    loaded = LoadedCrossEncoder(
        LoadOptions(str(path), dtype="float32", device="cpu", trust_remote_code=brings_code(path))
    )
    limit = loaded.limit(max_length)
    for query in (LONG_QUERY, QUERIES[0]):
        (count,) = loaded.count_tokens([(query, "a")])
        assert loaded.cut(query, count, limit).query == (query == LONG_QUERY)
    # What was read is a beginning of the query, of three quarters of the room at most and hardly less.
    room = (limit - loaded.count_tokens([("", "")])[0]) * 3 // 4
    tokenizer = AutoTokenizer.from_pretrained(path)
    lengths = range(len(LONG_QUERY) + 1)
    longest = bisect.bisect(lengths, room, key=lambda end: len(tokenizer.tokenize(LONG_QUERY[:end]))) - 1
    # A beginning may have fewer tokens than one that is a letter shorter, so the next few are tried too.
    cuts = [LONG_QUERY[:end] for end in range(longest - 3, longest + 4)]
    expected = [logits_of(reference, cut, texts, length=limit) for cut in cuts]
    assert any(scores == pytest.approx(logits, abs=1e-4) for logits in expected)


@pytest.mark.slow
def test_a_long_query_is_whole_beside_a_text_with_which_it_fits(path: Path, reference: CrossEncoder) -> None:
    loaded = LoadedCrossEncoder(
        LoadOptions(str(path), dtype="float32", device="cpu", trust_remote_code=brings_code(path))
    )
    query = QUERIES[5]
    limit = max(loaded.count_tokens([(query, text) for text in ("a", "bank")]))
    assert loaded.cut(query, limit + 1, limit).query
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = model_of(path, max_length=limit).score(query, ["a", "bank"])
    assert scores == pytest.approx(logits_of(reference, query, ["a", "bank"]), abs=1e-4)


@pytest.mark.slow
def test_odd_text_is_scored(path: Path, reference: CrossEncoder) -> None:
    model = model_of(path)
    for query in ("🐈", "a\x00b", "\x00"):
        assert all(math.isfinite(score) for score in model.score(query, ODD_TEXTS))
    expected = logits_of(reference, QUERIES[0], ODD_TEXTS)
    assert model.score(QUERIES[0], ODD_TEXTS) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_bfloat16_is_no_further_from_float32_than_with_sums_in_bfloat16(
    family: str, path: Path, reference: CrossEncoder
) -> None:
    exact = logits_of(reference, QUERIES[1], TEXTS)
    throughout = CrossEncoder(str(path), device="cpu", trust_remote_code=brings_code(path)).to(torch.bfloat16)
    theirs = logits_of(throughout, QUERIES[1], TEXTS)
    ours = model_of(path, dtype="bfloat16").score(QUERIES[1], TEXTS)
    # Of so small a model few sums are rounded; one family comes out even. The logit of a single token is rounded last,
    # to three digits, in both.
    assert error(ours, exact) < (1.5 if family == "zerank-2" else 1.1) * error(theirs, exact)


def error(scores: list[float], exact: list[float]) -> float:
    return statistics.fmean(abs(one - other) for one, other in zip(scores, exact, strict=True))


def test_an_empty_pair_is_scored(path: Path) -> None:
    assert math.isfinite(model_of(path).score("", [""])[0])


def test_windows_need_to_know_where_tokens_stand(written: Callable[[str], Path]) -> None:
    with pytest.raises(CheckpointError, match=r"BertJapaneseTokenizer.*windows"):
        model_of(written("bert-japanese")).token_spans([CHINESE[0]])


def test_half_a_character_is_refused(path: Path) -> None:
    with pytest.raises(InvalidInputError, match="Unicode"):
        model_of(path).score(QUERIES[0], ["\ud83d"])


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_length_below_the_template_is_refused(written: Callable[[str], Path], family: str) -> None:
    with pytest.raises(InvalidInputError, match="max_length is 30; expected more than"):
        model_of(written(family), max_length=30).score(QUERIES[0], [ENGLISH[0]])


def test_the_prompt_of_a_checkpoint_is_part_of_every_pair(tmp_path: Path) -> None:
    default = write_qwen3_reranker(tmp_path)
    plain = model_of(default).score(QUERIES[0], TEXTS)
    length = whole_length(default, QUERIES[0], ENGLISH[0])
    for name, prompt, same in [("same", INSTRUCTION, True), ("other", f"{INSTRUCTION} in a court of law", False)]:
        model = model_of(write_qwen3_reranker(tmp_path / name, prompt=prompt))
        scores = model.score(QUERIES[0], TEXTS)
        assert (scores == pytest.approx(plain, abs=1e-5)) is same
    with pytest.warns(TruncationWarning):
        model_of(tmp_path / "other", max_length=length).score(QUERIES[0], [ENGLISH[0]])


INSTRUCTED = ("qwen3", "qwen3 with a prompt", "qwen3 without modules", "qwen3 classifier")
LAW = "Find the clause of the law that settles the question"


@pytest.mark.parametrize("family", INSTRUCTED)
def test_an_instruction_takes_the_place_of_the_checkpoints_own(written: Callable[[str], Path], family: str) -> None:
    path, query = written(family), QUERIES[0]
    reference, plain = CrossEncoder(str(path), device="cpu"), model_of(path)
    pairs = [(query, text) for text in TEXTS]
    expected = reference.predict(pairs, prompt=LAW, activation_fn=torch.nn.Identity()).tolist()
    before = plain.score(query, TEXTS)
    assert expected != pytest.approx(before, abs=1e-3)
    instructed = model_of(path, instruction=LAW)
    assert instructed.score(query, TEXTS) == pytest.approx(expected, abs=1e-4)
    assert plain.score(query, TEXTS, instruction=LAW) == pytest.approx(expected, abs=1e-4)
    assert plain.predict(pairs, instruction=LAW).tolist() == pytest.approx(expected, abs=1e-4)
    assert [row["score"] for row in plain.rank(query, TEXTS, instruction=LAW)] == pytest.approx(
        sorted(expected, reverse=True), abs=1e-4
    )
    hits = rerank(query, [Passage(str(number), text) for number, text in enumerate(TEXTS)], plain, instruction=LAW)
    assert {int(hit.id): hit.score for hit in hits} == pytest.approx(dict(enumerate(expected)), abs=1e-4)
    # The model itself is as before, and all of them are one loaded copy.
    assert plain.score(query, TEXTS) == before
    assert instructed.options()["instruction"] == LAW
    assert len([model for model in loaded_models() if model.name == str(path) and model.users]) == 1


def test_the_checkpoints_own_instruction_may_be_given(written: Callable[[str], Path]) -> None:
    model = model_of(written("qwen3"))
    own = model.score(QUERIES[0], TEXTS, instruction=INSTRUCTION)
    assert own == pytest.approx(model.score(QUERIES[0], TEXTS), abs=1e-5)


def test_an_instruction_counts_towards_the_length(written: Callable[[str], Path]) -> None:
    path = written("qwen3")
    length = whole_length(path, QUERIES[0], ENGLISH[0])
    with pytest.warns(TruncationWarning, match="1 of 1 query-passage pairs were cut"):
        model_of(path, max_length=length, instruction=LAW).score(QUERIES[0], [ENGLISH[0]])
    with pytest.raises(InvalidInputError, match="max_length is 100; expected more than"):
        model_of(path, max_length=100).score(QUERIES[0], [ENGLISH[0]], instruction=LAW * 5)
    with pytest.raises(TextTooLongError):
        rerank(QUERIES[0], [ENGLISH[0]], model_of(path, max_length=length), strict=True, instruction=LAW)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(INSTRUCTED)))
def test_an_instruction_that_is_not_read_is_refused(written: Callable[[str], Path], family: str) -> None:
    with pytest.raises(InvalidInputError, match=f"instruction is '{LAW}'.*does not read one.*chat template"):
        model_of(written(family), instruction=LAW).score(QUERIES[0], [ENGLISH[0]])


@pytest.mark.parametrize("instruction", ["", "  ", 7, "\ud83d"])
def test_an_instruction_without_text_is_refused(instruction: object) -> None:
    with pytest.raises(InvalidInputError, match="instruction"):
        CrossEncoderModel("any/model", instruction=instruction)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="instruction"):
        CrossEncoderModel("any/model").with_instruction(instruction)  # type: ignore[arg-type]


def test_an_instruction_needs_a_model_that_takes_one() -> None:
    with pytest.raises(InvalidInputError, match=r"instruction is .* with a scorer of type Lengths; expected a Cross"):
        rerank("a query", ["a text"], Lengths(), instruction=LAW)


class Lengths:
    def score(self, query: str, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]


def test_the_scale_of_zerank_is_a_sigmoid_of_a_fifth_of_the_logit(written: Callable[[str], Path]) -> None:
    path = written("zerank-2")
    logits = model_of(path).score(QUERIES[0], TEXTS)
    assert model_of(path, activation="model").score(QUERIES[0], TEXTS) == logits
    assert model_of(path, activation="model").score_scale == "logit"
    calibrated = model_of(path, activation="sigmoid", temperature=5)
    expected = [1 / (1 + math.exp(-logit / 5)) for logit in logits]
    assert calibrated.score(QUERIES[0], TEXTS) == pytest.approx(expected, abs=1e-6)
    assert calibrated.score_scale == "probability"
    assert calibrated.options()["temperature"] == 5
    order = [row["corpus_id"] for row in calibrated.rank(QUERIES[0], TEXTS)]
    assert order == sorted(range(len(TEXTS)), key=lambda number: -logits[number])


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan, True, "5"])
def test_a_temperature_is_a_number_above_0(temperature: object) -> None:
    with pytest.raises(InvalidInputError, match=r"temperature is .*expected a number above 0"):
        CrossEncoderModel("any/model", activation="sigmoid", temperature=temperature)  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["model", "raw"])
def test_a_temperature_belongs_to_the_sigmoid(activation: Activation) -> None:
    with pytest.raises(InvalidInputError, match=r"temperature is 5 with activation=.*expected activation='sigmoid'"):
        CrossEncoderModel("any/model", activation=activation, temperature=5)


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "chat model": (lambda path: write_qwen3_reranker(path, "chat"), "language model .Qwen3ForCausalLM.*'query'"),
    "embedding model": (write_qwen3_embedder, "language model .Qwen3ForCausalLM.*modules.json"),
    "bge-reranker-v2-gemma as on the hub": (lambda path: write_gemma_reranker(path, with_modules=False), "GemmaForC"),
    "classifier with a chat model's template": (
        lambda path: write_qwen3_classifier(path, template=CHAT_TEMPLATE),
        "chat template.*cannot carry",
    ),
    "many texts at once": (write_listwise_reranker, r"score\.weight.*random"),
    "own code": (write_own_code_reranker, r"trust_remote_code=True"),
    "own code of a known type": (
        lambda path: write_own_code_reranker(path, with_type=True),
        r"trust_remote_code=True",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_rerank_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    write, reason = REFUSED[case]
    path = write(tmp_path)
    with pytest.raises(CheckpointError, match=f"(?s){reason}") as refusal:
        model_of(path, trust_remote_code=False).score(QUERIES[0], [ENGLISH[0]])
    assert str(path) in str(refusal.value)
