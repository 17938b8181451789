"""The head of the starter cross-encoder: late interaction between tokens that have read each other."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn


class JointMaxSim(Module):
    """One relevance logit of a query and a passage that were encoded together.

    Each query token's best cosine among the passage's tokens, averaged with weights that a linear layer gives the
    query's tokens, scaled; plus a linear function of the first token (``[CLS]``). The similarities start as a
    ColBERT's, so that a small encoder ranks well after little training.

    Parameters
    ----------
    width, dim
        The length of the encoder's token vectors, and of their projections.
    markers
        The ids of the tokens that take no part in the matching.
    bias
        Whether the projection adds a vector: that of a ColBERT which subtracts the mean token vector first.

    References
    ----------
    MacAvaney et al., CEDR: Contextualized Embeddings for Document Ranking, SIGIR 2019, arXiv:1904.07094.
    """

    config_keys: list[str] = ["width", "dim", "markers", "bias"]  # noqa: RUF012 - as sentence-transformers has it

    def __init__(self, width: int, dim: int, markers: list[int], bias: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.width: int = width
        self.dim: int = dim
        self.markers: list[int] = list(markers)
        self.bias: bool = bias
        self.linear: nn.Linear = nn.Linear(width, dim, bias=bias)
        self.weight: nn.Linear = nn.Linear(width, 1)
        self.first: nn.Linear = nn.Linear(width, 1)
        self.scale: nn.Parameter = nn.Parameter(torch.tensor(20.0))
        # Training starts with equal weights and without the first token; the shift puts a middling cosine at even odds.
        for layer in (self.weight, self.first):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.first.bias, -12.0)

    def forward(self, features: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        """Add ``scores``, *Shape:* (pairs, 1), float32: logits, higher is better."""
        tokens: Tensor = features["token_embeddings"]
        ids, segments = features["input_ids"], features["token_type_ids"]
        real = features["attention_mask"].bool() & ~torch.isin(ids, torch.tensor(self.markers, device=ids.device))
        of_query, of_passage = real & (segments == 0), real & (segments == 1)
        vectors = nn.functional.normalize(self.linear(tokens), dim=-1)
        similarities = (vectors @ vectors.transpose(1, 2)).float()
        best = similarities.masked_fill(~of_passage[:, None, :], -1.0).amax(dim=-1)
        weights = nn.functional.softplus(self.weight(tokens).float()).squeeze(-1) * of_query
        matched = (weights * best).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-6)
        logits = self.scale.float() * matched + self.first(tokens[:, 0]).float().squeeze(-1)
        features["scores"] = logits.unsqueeze(1)
        return features

    def save(self, output_path: str, *args: object, safe_serialization: bool = True, **kwargs: object) -> None:
        """Write configuration and weights into a folder, as sentence-transformers' own modules do."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **_: object,
    ) -> JointMaxSim:
        """Read what `save` wrote, from a folder or the hub."""
        source: dict[str, Any] = {
            "subfolder": subfolder,
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        config = cls.load_config(model_name_or_path, **source)
        module: JointMaxSim = cls.load_torch_weights(
            model_name_or_path, model=cls(**(init_defaults or {}), **config), **source
        )
        return module
