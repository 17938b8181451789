"""Checkpoints that contain their model's code, in the layout of jinaai's XLM-R."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from .encoders import seeded
from .own_xlm_roberta import modeling_xlm_roberta
from .own_xlm_roberta.configuration_xlm_roberta import XLMRobertaFlashConfig
from .vocabulary import write_json


def write_own_code(
    path: Path, config: dict[str, Any], class_name: str, seed: int, projection: nn.Linear | None = None
) -> Path:
    """Write config.json with auto_map, the two Python files it names, and weights that no class of transformers has.

    With a `projection` the weights are those of a Stanford ColBERT: the encoder under ``roberta.``, ``linear.weight``.
    """
    model = seeded(getattr(modeling_xlm_roberta, class_name)(XLMRobertaFlashConfig(**config)), seed)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    if projection is not None:
        weights = {f"roberta.{name}": value for name, value in weights.items()}
        weights["linear.weight"] = projection.weight.detach()
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    folder = Path(modeling_xlm_roberta.__file__).parent
    for name in ("configuration_xlm_roberta.py", "modeling_xlm_roberta.py"):
        shutil.copy(folder / name, path / name)
    auto_map = {
        "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
        "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
    }
    architecture = class_name if projection is None else "HF_ColBERT"
    write_json(path / "config.json", config | {"auto_map": auto_map, "architectures": [architecture]})
    return path
