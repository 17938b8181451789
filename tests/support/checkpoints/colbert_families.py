"""ColBERT checkpoints over other encoders than BERT, several of them multilingual, and one that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import nn
from transformers import (
    Lfm2Config,
    Lfm2Model,
    ModernBertModel,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaModel,
    XmodConfig,
    XmodModel,
)

from .colbert import (
    folder,
    projection,
    save_dense,
    write_artifact_metadata,
    write_multi_vector,
    write_pylate_settings,
    write_stanford_colbert,
)
from .encoders import HIDDEN, TINY, seeded
from .own_code import write_own_code
from .rerankers import modernbert_config, modernbert_v4, save
from .vocabulary import (
    BERT_SPECIALS,
    GEMMA_SPECIALS,
    LFM2_SPECIALS,
    ROBERTA_SPECIALS,
    lfm2_tokenizer,
    mmbert_tokenizer,
    modern_tokenizer,
    unigram_tokenizer,
    write_json,
    write_tokenizer,
)


def write_small_colbert(path: str | Path, seed: int = 31) -> Path:
    """Write answerdotai/answerai-colbert-small-v1: Stanford format, 96 dimensions, 300 tokens."""
    return write_stanford_colbert(path, seed=seed, dim=96, doc_maxlen=300)


def write_xlmr_colbert(path: str | Path, seed: int = 32) -> Path:
    """Write hltcoe/plaidx-large-zho-tdist-mt5xxl-engzho: Stanford format over XLM-R, the encoder under ``roberta.``."""
    path = folder(path)
    config = _xlmr_with_markers(path)
    return _save_stanford(path, XLMRobertaModel(XLMRobertaConfig(**config)), seed)


XMOD_LANGUAGES = ("en_XX", "de_DE", "zh_CN")


def write_xmod_colbert(path: str | Path, seed: int = 37) -> Path:
    """Write antoinelouis/colbert-xm: Stanford format over XMOD, an adapter per language, English by default."""
    path = folder(path)
    config = _xlmr_with_markers(path) | {"languages": list(XMOD_LANGUAGES), "default_language": "en_XX"}
    return _save_stanford(path, XmodModel(XmodConfig(**config, adapter_reuse_layer_norm=True)), seed)


def _save_stanford(path: Path, encoder: PreTrainedModel, seed: int) -> Path:
    encoder = seeded(encoder, seed)
    weights = {f"roberta.{name}": value.contiguous() for name, value in encoder.state_dict().items()}
    weights["linear.weight"] = projection(seed).weight.detach()
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    write_json(path / "config.json", encoder.config.to_dict() | {"architectures": ["HF_ColBERT"]})
    write_artifact_metadata(path, query_token_id="[QueryMarker]", doc_token_id="[DocumentMarker]")
    return path


def write_jina_colbert(path: str | Path, seed: int = 33) -> Path:
    """Write jinaai/jina-colbert-v2: Stanford format, multilingual, custom encoder code; 8192 tokens (here 256)."""
    path = folder(path)
    config = _xlmr_with_markers(path) | {"max_position_embeddings": 258}
    write_own_code(path, config, "XLMRobertaModel", seed, projection(seed))
    markers = {"query_token_id": "[QueryMarker]", "doc_token_id": "[DocumentMarker]"}
    write_artifact_metadata(path, **markers, doc_maxlen=256, attend_to_mask_tokens=True, mask_punctuation=False)
    return path


def _xlmr_with_markers(path: Path) -> dict[str, Any]:
    tokenizer = unigram_tokenizer()
    tokenizer.add_tokens([AddedToken("[QueryMarker]"), AddedToken("[DocumentMarker]")])
    write_tokenizer(path, tokenizer, "XLMRobertaTokenizer", ROBERTA_SPECIALS, max_length=512)
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    sizes = {"max_position_embeddings": 514, "type_vocab_size": 1, "vocab_size": tokenizer.get_vocab_size()}
    return TINY | sizes | ids


def write_modern_colbert(path: str | Path, seed: int = 34) -> Path:
    """Write lightonai/GTE-ModernColBERT-v1: PyLate format over ModernBERT."""
    path = _modernbert_with_markers(folder(path), seed)
    save_dense(path / "1_Dense", projection(seed), {})
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 299, "do_lower_case": False})
    write_pylate_settings(path, query_length=32, document_length=240)
    return path


def write_edge_colbert(path: str | Path, seed: int = 35) -> Path:
    """Write mixedbread-ai/mxbai-edge-colbert-v0-32m: PyLate format, two layers one after the other, no expansion."""
    path = _modernbert_with_markers(folder(path), seed)
    wide = seeded(nn.Linear(HIDDEN, 2 * HIDDEN, bias=False), seed + 1000)
    residual = seeded(nn.Linear(HIDDEN, 2 * HIDDEN, bias=False), seed + 2000)
    save_dense(path / "1_Dense", wide, {"use_residual": True})
    weights = {"linear.weight": wide.weight.detach(), "residual.weight": residual.weight.detach()}
    save_file(weights, path / "1_Dense" / "model.safetensors", metadata={"format": "pt"})
    save_dense(path / "2_Dense", seeded(nn.Linear(2 * HIDDEN, 64, bias=False), seed + 3000), {"use_residual": False})
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 239, "do_lower_case": True})
    write_pylate_settings(path, dense_layers=2, query_length=48, document_length=240, do_query_expansion=False)
    return path


def _modernbert_with_markers(path: Path, seed: int) -> Path:
    tokenizer = modern_tokenizer()
    tokenizer.add_tokens([AddedToken("[Q] ", normalized=True), AddedToken("[D] ", normalized=True)])
    specials = BERT_SPECIALS | {"pad_token": "[MASK]"}
    write_tokenizer(path, tokenizer, "PreTrainedTokenizerFast", specials, max_length=299)
    config = modernbert_config(tokenizer)
    return save(path, seeded(ModernBertModel(config), seed), modernbert_v4(config))


_MMBERT_SPECIAL = {"bos": "<bos>", "eos": "<eos>", "cls": "<bos>", "sep": "<eos>", "pad": "<pad>"}


def write_mmbert_colbert(path: str | Path, seed: int = 38) -> Path:
    """Write a PyLate model of jhu-clsp/mmBERT-base: ModernBERT with the tokenizer of Gemma, ``<bos>`` to ``<eos>``."""
    path = folder(path)
    tokenizer = mmbert_tokenizer()
    tokenizer.add_tokens([AddedToken("[Q] ", normalized=True), AddedToken("[D] ", normalized=True)])
    specials = GEMMA_SPECIALS | {"mask_token": "<mask>", "pad_token": "<mask>"}
    write_tokenizer(path, tokenizer, "GemmaTokenizer", specials, max_length=299)
    config = modernbert_config(tokenizer, special=_MMBERT_SPECIAL)
    save(path, seeded(ModernBertModel(config), seed), modernbert_v4(config))
    save_dense(path / "1_Dense", projection(seed), {"use_residual": False})
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 299, "do_lower_case": False})
    write_pylate_settings(path, query_length=32, document_length=240, do_query_expansion=True)
    return path


def write_lfm2_colbert(path: str | Path, seed: int = 39) -> Path:
    """Write LiquidAI/LFM2-ColBERT-350M: PyLate format over LFM2, whose short convolutions alternate with attention.

    The tokenizer has no mask token: a query is expanded, and a batch padded, with the token that ends a text.
    """
    path = folder(path)
    tokenizer = lfm2_tokenizer()
    tokenizer.add_tokens([AddedToken("[Q] ", normalized=True), AddedToken("[D] ", normalized=True)])
    write_tokenizer(path, tokenizer, "PreTrainedTokenizerFast", LFM2_SPECIALS, max_length=511)
    sizes = {key: TINY[key] for key in ("hidden_size", "num_attention_heads", "intermediate_size")}
    ids = {name: tokenizer.token_to_id(LFM2_SPECIALS[name]) for name in ("bos_token", "eos_token", "pad_token")}
    config = Lfm2Config(
        **sizes,
        **{f"{name}_id": value for name, value in ids.items()},
        vocab_size=tokenizer.get_vocab_size(),
        num_hidden_layers=4,
        num_key_value_heads=2,
        layer_types=["conv", "conv", "full_attention", "conv"],
        max_position_embeddings=512,
    )
    save(path, seeded(Lfm2Model(config), seed), config.to_dict())
    save_dense(path / "1_Dense", projection(seed), {"use_residual": False})
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 511, "do_lower_case": False})
    write_pylate_settings(path, query_length=32, document_length=512, do_query_expansion=True)
    return path


def write_pooled_colbert(path: str | Path, pool_factor: float = 2.0, seed: int = 40) -> Path:
    """Let sentence-transformers save a `MultiVectorEncoder` whose last module pools a document's token vectors."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    path = write_multi_vector(path, seed=seed)
    model = MultiVectorEncoder(str(path), device="cpu")
    model.append(HierarchicalTokenPooling(pool_factor))
    model.save_pretrained(str(path), create_model_card=False)
    return path


def write_bge_m3(path: str | Path, seed: int = 36, *, dim: int = HIDDEN) -> Path:
    """Write BAAI/bge-m3: a bi-encoder whose ColBERT projection is in colbert_linear.pt, for FlagEmbedding.

    The published one has 1,024 dimensions, as many as its hidden layers.
    """
    path = folder(path)
    tokenizer = unigram_tokenizer()
    write_tokenizer(path, tokenizer, "XLMRobertaTokenizer", ROBERTA_SPECIALS, max_length=256)
    sizes = {"max_position_embeddings": 258, "type_vocab_size": 1, "vocab_size": tokenizer.get_vocab_size()}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    encoder = seeded(XLMRobertaModel(XLMRobertaConfig(**TINY, **sizes, **ids)), seed)
    save(path, encoder, encoder.config.to_dict())
    torch.save(seeded(nn.Linear(HIDDEN, dim), seed + 1000).state_dict(), path / "colbert_linear.pt")
    torch.save(seeded(nn.Linear(HIDDEN, 1), seed + 2000).state_dict(), path / "sparse_linear.pt")
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    write_json(path / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": True})
    kinds = ["Transformer", "Pooling", "Normalize"]
    places = ["", "1_Pooling", "2_Normalize"]
    write_json(
        path / "modules.json",
        [
            {"idx": n, "name": str(n), "path": place, "type": f"sentence_transformers.models.{kind}"}
            for n, (kind, place) in enumerate(zip(kinds, places, strict=True))
        ],
    )
    version = {"sentence_transformers": "2.2.2", "transformers": "4.33.0", "pytorch": "2.1.2+cu121"}
    write_json(path / "config_sentence_transformers.json", {"__version__": version})
    return path


def write_hidden_projection(path: str | Path) -> Path:
    """Write mixedbread-ai/mxbai-colbert-large-v1: Stanford format, with a modules.json of the encoder alone."""
    path = write_stanford_colbert(path)
    encoder = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    write_json(path / "modules.json", [encoder])
    return path
