"""A loaded cross-encoder in the number format that was asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# Of a linear layer: so few outputs are the scores themselves, which bfloat16 would leave three digits.
_SCORES = 8


def in_dtype(model: Any, dtype: torch.dtype) -> Any:
    """Put a `sentence_transformers.CrossEncoder` into `dtype` and evaluation mode, and return it.

    In bfloat16 the encoder holds its linear layers and embeddings in that format and multiplies matrices in it; sums,
    norms, the layer that gives the score and all modules after the encoder are in float32. On a CPU that is as fast as
    bfloat16 throughout, and the starter's logits are seven times as near to those of float32.
    """
    if dtype is not torch.bfloat16:
        return model.to(dtype).eval()
    model.float()
    encoder = model[0]
    for module in encoder.modules():
        if isinstance(module, nn.Embedding):
            module.to(dtype).register_forward_hook(_to_float32)
        elif isinstance(module, nn.Linear):
            if module.out_features <= _SCORES:
                _compute_in_float32(module)
            else:
                module.to(dtype)
    _multiply_in(dtype, encoder)
    return model.eval()


def _to_float32(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
    return output.float()


def _compute_in_float32(module: nn.Linear) -> None:
    plain = module.forward

    def forward(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            return plain(rows.float())

    module.forward = forward  # type: ignore[method-assign, assignment]


def _multiply_in(dtype: torch.dtype, encoder: Any) -> None:
    plain = encoder.forward

    def forward(features: dict[str, Any], **options: Any) -> dict[str, Any]:
        with torch.autocast(features["input_ids"].device.type, dtype=dtype):
            output: dict[str, Any] = plain(features, **options)
        return {name: value.float() if _is(value, dtype) else value for name, value in output.items()}

    encoder.forward = forward


def _is(value: Any, dtype: torch.dtype) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is dtype
