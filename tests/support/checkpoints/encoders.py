"""Tiny encoder weights, seeded, and strong enough that each token's vector depends on its neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

HIDDEN = 48
DIM = 128

TINY: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


def seeded(model: nn.Module, seed: int) -> nn.Module:
    """Fill every parameter from `seed` alone, so that the files do not depend on a library's initialiser.

    No bias is left at zero and no norm at one: dropping any of them changes the output.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "word_embeddings" in name or "embed_tokens" in name or "tok_embeddings" in name:
                parameter.copy_(noise)
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.ndim > 1 and "embeddings" not in name:
                parameter.copy_(0.7 * noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.copy_(0.2 * noise)
    return model.eval()
