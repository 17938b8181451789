"""ColBERT checkpoints in the three formats that exist, and two encoders that are not ColBERT."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from torch import nn
from transformers import BertConfig, BertModel

from .encoders import DIM, HIDDEN, TINY, seeded
from .vocabulary import BERT_SPECIALS, bert_tokenizer, write_json, write_tokenizer


def write_stanford_colbert(
    path: str | Path,
    *,
    seed: int = 1,
    query_maxlen: int = 32,
    doc_maxlen: int = 180,
    mask_punctuation: bool = True,
    attend_to_mask_tokens: bool = False,
    dim: int = DIM,
) -> Path:
    """Write what colbert-ai saves: one weight file with ``bert.*`` and ``linear.weight``, a metadata file."""
    path = folder(path)
    bert = _bert(seed)
    weights = {f"bert.{name}": value for name, value in bert.state_dict().items()}
    weights["linear.weight"] = projection(seed, dim).weight.detach()
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    write_json(path / "config.json", _config(bert, "HF_ColBERT"))
    write_tokenizer(path, bert_tokenizer(), "BertTokenizer", BERT_SPECIALS)
    metadata = {"query_maxlen": query_maxlen, "doc_maxlen": doc_maxlen, "mask_punctuation": mask_punctuation}
    write_artifact_metadata(path, dim=dim, attend_to_mask_tokens=attend_to_mask_tokens, **metadata)
    return path


def write_artifact_metadata(path: Path, **settings: Any) -> None:
    """Write colbert-ai's settings: those of colbert-ir/colbertv2.0, with `settings` changed."""
    write_json(
        path / "artifact.metadata",
        {
            "query_token_id": "[unused0]",
            "doc_token_id": "[unused1]",
            "query_token": "[Q]",
            "doc_token": "[D]",
            "ncells": None,
            "centroid_score_threshold": None,
            "ndocs": None,
            "index_path": None,
            "nbits": 1,
            "kmeans_niters": 20,
            "similarity": "cosine",
            "bsize": 32,
            "nway": 64,
            "use_ib_negatives": True,
            "query_maxlen": 32,
            "attend_to_mask_tokens": False,
            "interaction": "colbert",
            "dim": DIM,
            "doc_maxlen": 180,
            "mask_punctuation": True,
            "amp": True,
            "meta": {"version": "colbert-v0.4"},
            **settings,
        },
    )


def write_pylate_colbert(
    path: str | Path,
    *,
    seed: int = 2,
    flavour: Literal["v1", "v3"] = "v3",
    query_length: int = 32,
    document_length: int = 180,
    do_query_expansion: bool = True,
) -> Path:
    """Write what PyLate's ``ColBERT.save`` writes.

    ``"v1"`` is a save made over sentence-transformers 3 or 4: no ``model_type``, no ``do_query_expansion``.
    ``"v3"`` is one made over sentence-transformers 5. In both, the markers are added tokens that end in a
    blank, the padding token of the tokenizer is the mask token, and ``max_seq_length`` is whatever the last
    call before the save left there: the query's, as in many saves on the hub.
    """
    path = folder(path)
    tokenizer = bert_tokenizer()
    tokenizer.add_tokens([AddedToken("[Q] ", normalized=True), AddedToken("[D] ", normalized=True)])
    bert = _bert(seed, vocab_size=tokenizer.get_vocab_size())
    _save_transformer(path, bert, tokenizer, BERT_SPECIALS | {"pad_token": "[MASK]"})
    save_dense(path / "1_Dense", projection(seed), {"use_residual": False} if flavour == "v3" else {})
    write_json(path / "sentence_bert_config.json", {"max_seq_length": query_length - 1, "do_lower_case": False})
    expansion = {"do_query_expansion": do_query_expansion} if flavour == "v3" else {}
    write_pylate_settings(path, query_length=query_length, document_length=document_length, **expansion)
    return path


def write_pylate_settings(path: Path, *, dense_layers: int = 1, **settings: Any) -> None:
    """Write modules.json and PyLate's settings; with ``do_query_expansion`` as version 3 does, without as version 1."""
    denses = [
        {"idx": n, "name": str(n), "path": f"{n}_Dense", "type": "pylate.models.Dense.Dense"}
        for n in range(1, dense_layers + 1)
    ]
    transformer = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    write_json(path / "modules.json", [transformer, *denses])
    version = {"sentence_transformers": "4.0.2", "transformers": "4.48.2", "pytorch": "2.6.0+cu124"}
    config: dict[str, Any] = {"__version__": version}
    if "do_query_expansion" in settings:
        config = {"model_type": "ColBERT", "__version__": version | {"sentence_transformers": "5.1.1"}}
    config |= {
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation),
        **settings,
    }
    write_json(path / "config_sentence_transformers.json", config)


def write_multi_vector(
    path: str | Path,
    *,
    seed: int = 3,
    query_length: int | None = None,
    document_length: int | None = 180,
    sizes: Mapping[str, int] = {},
) -> Path:
    """Let sentence-transformers save a `MultiVectorEncoder`: punctuation skiplist, no markers, no [MASK].

    `sizes` override BERT's configuration, for a model that must be larger than tiny.
    """
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    path = folder(path)
    bert = _bert(seed, **sizes)
    _save_transformer(path, bert, bert_tokenizer(), BERT_SPECIALS)
    transformer = Transformer(str(path), query_length=query_length, document_length=document_length)
    dense = Dense(
        bert.config.hidden_size,
        DIM,
        bias=False,
        activation_function=nn.Identity(),
        init_weight=projection(seed, hidden_size=bert.config.hidden_size).weight.detach(),
        module_input_name="token_embeddings",
    )
    mask = MultiVectorMask(skiplist_words=list(string.punctuation))
    modules = [transformer, dense, mask, Normalize(module_input_name="token_embeddings")]
    MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(path), create_model_card=False)
    return path


def write_plain_encoder(path: str | Path, *, seed: int = 4) -> Path:
    """Write a bare BERT encoder, which has no ColBERT projection."""
    path = folder(path)
    _save_transformer(path, _bert(seed), bert_tokenizer(), BERT_SPECIALS)
    return path


def write_sentence_transformer(path: str | Path, with_dense: bool = False, *, seed: int = 5) -> Path:
    """Write a single-vector bi-encoder: mean pooling, and optionally a Dense head on the pooled vector."""
    path = write_plain_encoder(path, seed=seed)
    layers = ["", "1_Pooling"]
    types = ["Transformer", "Pooling"]
    write_json(path / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, "pooling_mode": "mean"})
    if with_dense:
        layers.append("2_Dense")
        types.append("Dense")
        save_dense(path / "2_Dense", projection(seed), {})
    layers.append(f"{len(layers)}_Normalize")
    types.append("Normalize")
    write_json(
        path / "modules.json",
        [
            {"idx": place, "name": str(place), "path": layer, "type": f"sentence_transformers.models.{kind}"}
            for place, (layer, kind) in enumerate(zip(layers, types, strict=True))
        ],
    )
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    version = {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}
    write_json(path / "config_sentence_transformers.json", {"__version__": version})
    return path


def folder(path: str | Path) -> Path:
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _bert(seed: int, **sizes: int) -> BertModel:
    return seeded(BertModel(BertConfig(**{"vocab_size": bert_tokenizer().get_vocab_size(), **TINY, **sizes})), seed)


def projection(seed: int, dim: int = DIM, *, hidden_size: int = HIDDEN) -> nn.Linear:
    return seeded(nn.Linear(hidden_size, dim, bias=False), seed + 1000)


def _config(bert: BertModel, architecture: str) -> dict[str, Any]:
    return bert.config.to_dict() | {"architectures": [architecture], "transformers_version": "4.30.0"}


def _save_transformer(path: Path, bert: BertModel, tokenizer: Tokenizer, specials: dict[str, str]) -> None:
    weights = {name: value.contiguous() for name, value in bert.state_dict().items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    write_json(path / "config.json", _config(bert, "BertModel"))
    write_tokenizer(path, tokenizer, "BertTokenizer", specials)


def save_dense(path: Path, linear: nn.Linear, more: dict[str, Any]) -> None:
    config = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": "torch.nn.modules.linear.Identity",
        **more,
    }
    write_json(path / "config.json", config)
    weight: dict[str, torch.Tensor] = {"linear.weight": linear.weight.detach()}
    save_file(weight, path / "model.safetensors", metadata={"format": "pt"})
