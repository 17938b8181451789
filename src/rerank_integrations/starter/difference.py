"""A trained encoder stored as its difference to a base: matrices of low rank, a few hundredths of the size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

_LEFT, _RIGHT, _WHOLE = ".left", ".right", ".whole"


def low_rank_difference(trained: nn.Module, base: nn.Module, rank: int) -> dict[str, torch.Tensor]:
    """Return the difference of the parameters of `trained` to those of `base`, in float16; both have the same shape.

    A matrix is stored by the `rank` greatest singular directions of its difference, as two factors; a vector whole.
    Parameters that did not change are omitted.
    """
    import torch

    before = dict(base.named_parameters())
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trained.named_parameters():
        change = (parameter.detach().float() - before[name].detach().float()).cpu()
        if not change.any():
            continue
        if change.ndim != 2:
            tensors[name + _WHOLE] = change.half()
            continue
        left, scales, right = torch.linalg.svd(change, full_matrices=False)
        roots = scales[:rank].sqrt()
        tensors[name + _LEFT] = (left[:, :rank] * roots).half().contiguous()
        tensors[name + _RIGHT] = (roots[:, None] * right[:rank]).half().contiguous()
    return tensors


def add_difference(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Add a difference that `low_rank_difference` returned to the parameters of `module`."""
    import torch

    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for key, tensor in tensors.items():
            name, _, kind = key.rpartition(".")
            if f".{kind}" == _WHOLE:
                parameters[name].add_(tensor.float())
            elif f".{kind}" == _LEFT:
                parameters[name].add_(tensor.float() @ tensors[name + _RIGHT].float())
