"""BGE-M3's ColBERT head, which sentence-transformers does not read: FlagEmbedding's colbert_linear.pt.

The computation is that of `EncoderOnlyEmbedderM3Model._colbert_embedding` in FlagEmbedding
(github.com/FlagOpen/FlagEmbedding, finetune/embedder/encoder_only/m3/modeling.py): every token but the first, ``<s>``,
goes through one linear layer with a bias, then to length 1; padding has no vector. FlagEmbedding divides the MaxSim by
the number of the query's vectors, as ``scale="mean"`` does here.

References
----------
Chen et al., M3-Embedding, ACL Findings 2024, arXiv:2402.03216.
"""

from __future__ import annotations

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from torch import nn

from rerank_integrations.core.models.checkpoints.files import BGE_M3_HEAD, find_file
from rerank_integrations.core.models.checkpoints.hub import hub_arguments
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.errors import CheckpointError


class FirstTokenMask(nn.Module):
    """Module that leaves the first token of each text without a vector; texts are padded on the right."""

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the features with a copy of the mask in which the first column is False."""
        mask = features["attention_mask"].bool()
        features["attention_mask"] = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], dim=1)
        return features


def load_bge_m3(options: LoadOptions, device: str) -> MultiVectorEncoder:
    """Load the encoder with its ColBERT head as a `MultiVectorEncoder`.

    Raises
    ------
    CheckpointError
        If colbert_linear.pt holds anything but the weight and the bias of one linear layer over the encoder's vectors.
    """
    transformer = Transformer.load(
        options.name_or_path,
        trust_remote_code=options.trust_remote_code,
        model_kwargs=dict(options.model_kwargs or {}),
        **hub_arguments(options),
    )
    weight, bias = _head(options, transformer.get_embedding_dimension())
    projection = Dense(
        weight.shape[1],
        weight.shape[0],
        bias=True,
        activation_function=nn.Identity(),
        init_weight=weight,
        module_input_name="token_embeddings",
    )
    with torch.no_grad():
        projection.linear.bias.copy_(bias)
    modules = [transformer, projection, FirstTokenMask(), Normalize(module_input_name="token_embeddings")]
    return MultiVectorEncoder(modules=modules, device=device)


def _head(options: LoadOptions, hidden_size: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    path = find_file(options, BGE_M3_HEAD)
    assert path is not None
    # A pickle may name any function; with weights_only torch builds tensors alone and refuses the rest.
    content = torch.load(path, map_location="cpu", weights_only=True)
    tensors = content if isinstance(content, dict) else {}
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if not _is_linear(weight, bias, hidden_size) or len(tensors) != 2:
        found = {name: tuple(getattr(value, "shape", ())) for name, value in tensors.items()}
        raise CheckpointError(
            f"{BGE_M3_HEAD} of {options.name_or_path!r} holds {found or type(content).__name__}; expected 'weight' of "
            f"shape (dimensions, {hidden_size}) and 'bias' of as many dimensions"
        )
    assert isinstance(weight, torch.Tensor) and isinstance(bias, torch.Tensor)
    return weight.float(), bias.float()


def _is_linear(weight: object, bias: object, hidden_size: int | None) -> bool:
    return (
        isinstance(weight, torch.Tensor)
        and isinstance(bias, torch.Tensor)
        and weight.ndim == 2
        and weight.shape[1] == hidden_size
        and bias.shape == weight.shape[:1]
    )
