"""Builders of tiny checkpoints with random weights from a seed, each in the on-disk format of its kind."""

from .colbert import (
    write_multi_vector,
    write_plain_encoder,
    write_pylate_colbert,
    write_sentence_transformer,
    write_stanford_colbert,
)
from .cross_encoder import FAMILIES, Family, write_cross_encoder
from .encoders import DIM, HIDDEN

__all__ = [
    "DIM",
    "FAMILIES",
    "HIDDEN",
    "Family",
    "write_cross_encoder",
    "write_multi_vector",
    "write_plain_encoder",
    "write_pylate_colbert",
    "write_sentence_transformer",
    "write_stanford_colbert",
]
