"""The encoder of the starter cross-encoder: lower layers read query and passage apart, upper layers together."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor

if TYPE_CHECKING:
    from transformers import BertModel

# The lower two thirds. Read apart, tokens stay what a ColBERT makes of them, so that little training is needed.
_SEPARATE_SHARE = 2 / 3


class JointTransformer(Transformer):
    """A BERT that reads a pair as two texts of one sequence before it reads it as one.

    In the first two thirds of the layers (four of six) a token attends only to its own text and to the first token
    (``[CLS]``), and positions count from the start of each text; both texts have the token type that the encoder was
    pooled with. In the other layers each token attends to all.

    References
    ----------
    MacAvaney et al., Efficient Document Re-Ranking for Transformers by Precomputing Term Representations, SIGIR 2020,
    arXiv:2004.14255.
    """

    def forward(self, features: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        """Add ``token_embeddings``, *Shape:* (pairs, tokens, width)."""
        bert = cast("BertModel", self.model)
        ids, segments = features["input_ids"], features["token_type_ids"]
        real = features["attention_mask"].bool()
        of_query = (real & (segments == 0)).long()
        columns = torch.arange(ids.shape[1], device=ids.device)[None].expand(ids.shape)
        # The passage's first word has the position that it would have after a [CLS] of its own.
        positions = torch.where(segments == 1, columns - of_query.sum(dim=1, keepdim=True) + 1, columns)
        states = bert.embeddings(input_ids=ids, token_type_ids=torch.zeros_like(ids), position_ids=positions)
        apart = (segments[:, :, None] == segments[:, None, :]) | (columns == 0)[:, None, :]
        together = real[:, None, :].expand(apart.shape)
        masks = [_bias(apart & together, states), _bias(together, states)]
        separate_layers = round(_SEPARATE_SHARE * len(bert.encoder.layer))
        for number, layer in enumerate(bert.encoder.layer):
            states = layer(states, masks[number >= separate_layers])
        features["token_embeddings"] = states
        return features


def _bias(allowed: Tensor, states: Tensor) -> Tensor:
    """Return 0 where attention is `allowed`, elsewhere the lowest number; *Shape:* (pairs, 1, tokens, tokens)."""
    bias = torch.zeros(allowed.shape, dtype=states.dtype, device=states.device)
    return bias.masked_fill(~allowed, torch.finfo(states.dtype).min)[:, None]
