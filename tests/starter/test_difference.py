"""Changes by training, stored as matrices of low rank."""

from __future__ import annotations

import torch
from torch import nn

from rerank_integrations.starter.difference import add_difference, low_rank_difference


def layers(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 10), nn.LayerNorm(10), nn.Linear(10, 8))


def changed(base: nn.Sequential, rank: int) -> nn.Sequential:
    """Return a copy of `base` with changed vectors, and matrices changed by others of `rank`."""
    other = layers(0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.ndim == 2:
                parameter.add_(0.1 * torch.randn(parameter.shape[0], rank) @ torch.randn(rank, parameter.shape[1]))
            else:
                parameter.add_(torch.randn_like(parameter))
    return other


def test_a_change_of_low_rank_comes_back_whole() -> None:
    base, trained = layers(0), changed(layers(0), 3)
    tensors = low_rank_difference(trained, base, 3)
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    add_difference(base, tensors)
    for ours, theirs in zip(base.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=5e-3)


def test_of_a_change_of_higher_rank_the_nearest_of_that_rank_comes_back() -> None:
    base, trained = layers(0), changed(layers(0), 6)
    difference = trained[0].weight.detach() - base[0].weight.detach()
    tail = torch.linalg.svdvals(difference)[2:].square().sum().sqrt()
    add_difference(base, low_rank_difference(trained, base, 2))
    left = (trained[0].weight.detach() - base[0].weight.detach()).norm()
    torch.testing.assert_close(left, tail, atol=1e-2, rtol=1e-2)


def test_what_did_not_change_is_not_stored() -> None:
    base, trained = layers(0), layers(0)
    with torch.no_grad():
        trained[2].weight.add_(1)
    assert set(low_rank_difference(trained, base, 4)) == {"2.weight.left", "2.weight.right"}
