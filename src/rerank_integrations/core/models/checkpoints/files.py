"""The files of a checkpoint: checks before anything is scored, and the fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_integrations.core.models.checkpoints.hub import absent_checkpoint, hub_arguments, is_hub_name
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

_PYLATE_KEYS = {"query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens"}
_CONFIG_FILES = (
    "config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "artifact.metadata",
    "chat_template.jinja",
)

# The ColBERT projection in the format of FlagEmbedding (BAAI/bge-m3).
BGE_M3_HEAD = "colbert_linear.pt"

# Not part of the fingerprint: vectors of models that differ only in length limits may share an index.
_LENGTHS = "sentence_bert_config.json"


def require_multi_vector(options: LoadOptions) -> None:
    """Refuse a checkpoint that sentence-transformers would load with a random projection.

    The Stanford format (architecture ``HF_ColBERT``), the sentence-transformers multi-vector and PyLate configurations,
    and bge-m3 are accepted.

    Raises
    ------
    CheckpointError
        For every other checkpoint; the message names its format and the expected ones.
    """
    architectures = read_json(options, "config.json").get("architectures") or []
    st_config = read_json(options, "config_sentence_transformers.json")
    modules = read_json(options, "modules.json")
    if not architectures and not modules:
        raise absent_checkpoint(options)
    has_projection = any("Dense" in str(module.get("type")) for module in modules)
    if "HF_ColBERT" in architectures and modules and not has_projection:
        # For example mxbai-colbert-large-v1: the list would hide the projection that the weight file contains.
        raise CheckpointError(
            f"modules.json of {options.name_or_path!r} lists no projection, yet config.json says HF_ColBERT; "
            "expected one or the other: remove modules.json to have it read as a Stanford ColBERT checkpoint"
        )
    if "HF_ColBERT" in architectures:
        return
    if st_config.get("model_type") in ("MultiVectorEncoder", "ColBERT"):
        return
    if _PYLATE_KEYS & set(st_config) and has_projection:
        return
    if is_bge_m3(options):
        return
    raise CheckpointError(
        f"{options.name_or_path!r} is a plain encoder (architecture {', '.join(architectures) or 'unknown'}) "
        "with no trained token projection; expected a ColBERT checkpoint in Stanford, PyLate, bge-m3 or "
        f"sentence-transformers multi-vector format{code_hint(options)}"
    )


def is_bge_m3(options: LoadOptions) -> bool:
    """Return whether the checkpoint's only token projection is in FlagEmbedding's file, as that of BAAI/bge-m3."""
    st_config = read_json(options, "config_sentence_transformers.json")
    # The same model saved by sentence-transformers or PyLate may still have the file beside its modules.
    if st_config.get("model_type") in ("MultiVectorEncoder", "ColBERT") or _PYLATE_KEYS & set(st_config):
        return False
    return find_file(options, BGE_M3_HEAD) is not None


def require_reranker(options: LoadOptions) -> None:
    """Refuse a language model whose files do not say how to ask it for a score.

    sentence-transformers would take the logits of "yes" and "no" from any language model, even an embedding model.

    Raises
    ------
    CheckpointError
        For such a model; the message names the architecture and the expected files.
    """
    architecture = (read_json(options, "config.json").get("architectures") or [""])[0]
    st_config = read_json(options, "config_sentence_transformers.json")
    is_saved_whole = st_config.get("model_type") == "CrossEncoder" and read_json(options, "modules.json")
    if not architecture.endswith("ForCausalLM") or is_saved_whole or _asks_for_pairs(_chat_template(options)):
        return
    raise CheckpointError(
        f"{options.name_or_path!r} is a language model ({architecture}) that does not say how to ask it for a score; "
        "expected modules.json of a sentence-transformers CrossEncoder, or a chat template with the roles "
        "'query' and 'document'"
    )


def _chat_template(options: LoadOptions) -> str:
    path = find_file(options, "chat_template.jinja")
    if path is not None:
        return Path(path).read_text(encoding="utf-8")
    return str(read_json(options, "tokenizer_config.json").get("chat_template") or "")


def _asks_for_pairs(template: str) -> bool:
    return all(re.search(rf"""['"]{role}['"]""", template) for role in ("query", "document"))


def code_hint(options: LoadOptions) -> str:
    """Return the hint of an error that the checkpoint brings code which may not run; otherwise an empty string.

    Only files on this machine are read: an error must not wait for a network.
    """
    if options.trust_remote_code or options.is_starter:
        return ""
    try:
        brings_code = "auto_map" in read_json(replace(options, local_files_only=True), "config.json")
    except CheckpointError:
        return ""
    return "; it brings code of its own, which runs with trust_remote_code=True only" if brings_code else ""


def read_json(options: LoadOptions, filename: str) -> Any:
    """Return the content of a JSON file of the checkpoint, or an empty dictionary if there is no such file."""
    path = find_file(options, filename)
    if path is None:
        return {}
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{filename} of {options.name_or_path!r} cannot be read: {error}") from error


def find_file(options: LoadOptions, filename: str) -> str | None:
    """Return the local path of a checkpoint's file, fetched from the hub if need be; ``None`` if there is none."""
    if Path(options.name_or_path).is_dir():
        # Without the libraries below, so that opening an index with a local model does not import torch.
        local = Path(options.name_or_path, filename)
        return str(local) if local.exists() else None
    if not is_hub_name(options.name_or_path):
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    arguments = hub_arguments(options)
    arguments["cache_dir"] = arguments.pop("cache_folder")
    try:
        return str(hf_hub_download(options.name_or_path, filename, **arguments))
    except (EntryNotFoundError, LocalEntryNotFoundError) as error:
        if isinstance(error, LocalEntryNotFoundError) and not arguments["local_files_only"]:
            # The file is neither cached nor fetched, which does not mean that the model has no such file.
            raise _not_fetched(options, filename, error) from error
        return None
    except Exception as error:
        # The hub client raises many kinds; each means that we cannot know what the checkpoint is.
        raise _not_fetched(options, filename, error) from error


def _not_fetched(options: LoadOptions, filename: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{filename} of {options.name_or_path!r} cannot be fetched from the hub: {error}")


def require_checkpoint(options: LoadOptions) -> None:
    """Raise `CheckpointError` if there is no checkpoint, before any library that takes seconds to import is."""
    if not options.is_starter:
        _local_root(options)


def fresh_parameters(options: LoadOptions, model: nn.Module) -> list[str]:
    """Return the parameters of a classifier that the checkpoint does not contain, so that they are random.

    The marks of transformers decide; without marks only the head is checked, by name. The head is everything outside
    the base encoder, and the pooler that feeds it.
    """
    unmarked = unloaded_parameters(model)
    if unmarked is not None:
        return unmarked
    stored = _stored_names(options)
    if stored is None:
        return []
    prefix = getattr(model, "base_model_prefix", "") + "."
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    head = [
        name
        for name, _ in model.named_parameters()
        if (not name.startswith(prefix) or ".pooler." in name) and name not in tied
    ]
    return [name for name in head if name not in stored and name.removeprefix(prefix) not in stored]


def unloaded_parameters(model: nn.Module) -> list[str] | None:
    """Return the parameters that loading did not fill, as transformers 5 marks them; ``None`` without marks."""
    loaded = {
        name: bool(getattr(parameter, "_is_hf_initialized", False)) for name, parameter in model.named_parameters()
    }
    return [name for name, is_loaded in loaded.items() if not is_loaded] if any(loaded.values()) else None


def require_filled(options: LoadOptions, fresh: list[str]) -> None:
    """Raise `CheckpointError` if there are `fresh` parameters, which are random; name the first few."""
    if not fresh:
        return
    more = f" and {len(fresh) - 4} more" if len(fresh) > 4 else ""
    raise CheckpointError(
        f"{options.name_or_path!r} holds no {', '.join(fresh[:4])}{more}: scores would be random; "
        f"expected a trained and complete checkpoint{code_hint(options)}"
    )


def _stored_names(options: LoadOptions) -> set[str] | None:
    for index_name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        index = read_json(options, index_name)
        if index:
            return set(index["weight_map"])
    path = find_file(options, "model.safetensors")
    if path is not None:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as weights:
            return set(weights.keys())
    path = find_file(options, "pytorch_model.bin")
    if path is None:
        return None
    import torch

    return set(torch.load(path, map_location="meta", weights_only=True))


def fingerprint(options: LoadOptions, kind: str) -> str:
    """Return 16 hexadecimal digits that identify a model: SHA-256 over weights, configuration, tokenizer.

    The same files give the same fingerprint in any folder, and on any device in any dtype.
    """
    digest = hashlib.sha256()
    for label, path in _identity_files(options, kind):
        digest.update(label.encode())
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def reading_fingerprint(options: LoadOptions, kind: str) -> str:
    """Return the fingerprint extended by a digest of the file of lengths, which changes how texts are read."""
    lengths = Path(options.name_or_path) / _LENGTHS
    if options.is_starter or not lengths.is_file():
        return fingerprint(options, kind)
    return f"{fingerprint(options, kind)}-{hashlib.sha256(lengths.read_bytes()).hexdigest()[:8]}"


def hub_commit(options: LoadOptions) -> str:
    """Return the commit of a model on the hub that loading would use; fetches no weights."""
    return _local_root(options).name


def _identity_files(options: LoadOptions, kind: str) -> Iterable[tuple[str, Path]]:
    if options.is_starter:
        from rerank_integrations import starter

        return [(path.name, path) for path in starter.checkpoint_files(kind)]
    root = _local_root(options)
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir() and path.name[:1].isdigit())]
    files = [file for folder in folders for file in _identifying(folder)]
    return [(path.relative_to(root).as_posix(), path) for path in files]


def _identifying(folder: Path) -> list[Path]:
    # A clone contains every variant of weights and tokenizer, the hub's cache only those that were loaded.
    patterns = ("model.safetensors", "model-*-of-*.safetensors", "pytorch_model*.bin")
    weights = next((files for pattern in patterns if (files := sorted(folder.glob(pattern)))), [])
    tokenizer = [folder / name for name in ("tokenizer.json", "vocab.txt") if (folder / name).is_file()][:1]
    others = [folder / name for name in (*_CONFIG_FILES, BGE_M3_HEAD) if (folder / name).is_file()]
    return weights + tokenizer + others


def _local_root(options: LoadOptions) -> Path:
    # The hub's cache has one folder per commit, so the folder of any file is the whole checkpoint.
    for filename in ("config.json", "modules.json"):
        path = find_file(options, filename)
        if path is not None:
            return Path(path).parent
    raise absent_checkpoint(options)
