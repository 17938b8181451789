"""Cross-encoder checkpoints of each family that people load, and the broken ones that must be refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    ElectraConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from .encoders import TINY, seeded
from .vocabulary import (
    BERT_SPECIALS,
    ROBERTA_SPECIALS,
    bert_tokenizer,
    bpe_tokenizer,
    unigram_tokenizer,
    write_json,
    write_tokenizer,
)

Family = Literal["bert", "xlm-roberta", "roberta", "electra"]
FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta", "electra")

_TOKENIZERS: dict[str, tuple[Any, str, dict[str, str]]] = {
    "bert": (bert_tokenizer, "BertTokenizer", BERT_SPECIALS),
    "electra": (bert_tokenizer, "ElectraTokenizer", BERT_SPECIALS),
    "roberta": (bpe_tokenizer, "RobertaTokenizer", ROBERTA_SPECIALS),
    "xlm-roberta": (unigram_tokenizer, "XLMRobertaTokenizer", ROBERTA_SPECIALS),
}


def write_cross_encoder(
    path: str | Path,
    family: Family = "bert",
    *,
    num_labels: int = 1,
    with_head: bool = True,
    pad_token: bool = True,
    seed: int = 6,
    sizes: Mapping[str, int] = {},
) -> Path:
    """Write a sequence classifier in the layout of its family's checkpoints on the hub.

    ``"bert"`` is cross-encoder/ms-marco-MiniLM-L6-v2, which records Identity as its activation;
    ``"xlm-roberta"`` is BAAI/bge-reranker-base, ``"roberta"`` is cross-encoder/stsb-distilroberta-base and
    ``"electra"`` is cross-encoder/qnli-electra-base. ``with_head=False`` writes the encoder alone;
    ``pad_token=False`` leaves the padding token out of the tokenizer and of the configuration. `sizes` are of the
    family's configuration, where it is to be larger than tiny.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    make_tokenizer, tokenizer_class, specials = _TOKENIZERS[family]
    tokenizer = make_tokenizer()
    if not pad_token:
        specials = {name: token for name, token in specials.items() if name != "pad_token"}
        tokenizer_class = "PreTrainedTokenizerFast"  # the family's own class would add its default back
    write_tokenizer(path, tokenizer, tokenizer_class, specials)
    config = _config(family, {"vocab_size": tokenizer.get_vocab_size(), **sizes}, num_labels if with_head else 2)
    factory = AutoModelForSequenceClassification if with_head else AutoModel
    model = seeded(factory.from_config(config), seed)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    saved = config.to_dict() | {"architectures": [type(model).__name__], "transformers_version": "4.44.0"}
    if family == "bert" and with_head:
        saved["sentence_transformers"] = {
            "activation_fn": "torch.nn.modules.linear.Identity",
            "version": "4.1.0",
        }
    if not pad_token:
        saved["pad_token_id"] = None
    write_json(path / "config.json", saved)
    return path


def write_far_logits(path: str | Path, shift: float) -> Path:
    """Write a BERT with a sigmoid whose logits are around `shift` instead of 0, a few apart."""
    path = write_cross_encoder(path)
    weights = load_file(path / "model.safetensors")
    weights["classifier.weight"] *= 20
    weights["classifier.bias"] = weights["classifier.bias"] * 20 + shift
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    del config["sentence_transformers"]
    write_json(path / "config.json", config)
    return path


def _config(family: Family, sizes: Mapping[str, int], num_labels: int) -> PreTrainedConfig:
    common = {**TINY, **sizes, "num_labels": num_labels}
    if family == "bert":
        return BertConfig(**common)
    if family == "electra":
        return ElectraConfig(embedding_size=32, **common)
    # Positions of this family start after the padding id, hence 514 for 512 tokens.
    roberta = common | {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
    roberta |= {"bos_token_id": 0, "eos_token_id": 2}
    return RobertaConfig(**roberta) if family == "roberta" else XLMRobertaConfig(**roberta)
