"""A tiny ModernBERT cross-encoder: rotary positions, local and global attention by turns."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, ModernBertConfig, Qwen2Config, Qwen2ForCausalLM

from .encoders import seeded
from .vocabulary import BERT_SPECIALS, bert_tokenizer, write_json, write_tokenizer

_SHAPE = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}


def write_modern_bert(path: Path, *, seed: int = 7) -> Path:
    """Write a sequence classifier with one label; its local attention reaches 8 tokens to each side."""
    tokenizer = bert_tokenizer()
    ids = {name: tokenizer.token_to_id(f"[{name.upper()}]") for name in ("pad", "cls", "sep")}
    config = ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        global_attn_every_n_layers=3,
        local_attention=16,
        num_labels=1,
        max_position_embeddings=512,
        bos_token_id=ids["cls"],
        eos_token_id=ids["sep"],
        **{f"{name}_token_id": number for name, number in ids.items()},
        **_SHAPE,
    )
    return _write(path, seeded(AutoModelForSequenceClassification.from_config(config), seed))


def write_causal_reranker(path: Path, *, seed: int = 8) -> Path:
    """Write a decoder that sentence-transformers takes for a reranker, which answers by its next token."""
    config = Qwen2Config(
        vocab_size=bert_tokenizer().get_vocab_size(),
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=101,
        eos_token_id=102,
        **_SHAPE,
    )
    return _write(path, seeded(Qwen2ForCausalLM(config), seed))


def _write(path: Path, model) -> Path:  # type: ignore[no-untyped-def]
    path.mkdir(parents=True, exist_ok=True)
    write_tokenizer(path, bert_tokenizer(), "PreTrainedTokenizerFast", BERT_SPECIALS)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    write_json(path / "config.json", model.config.to_dict() | {"architectures": [type(model).__name__]})
    return path
