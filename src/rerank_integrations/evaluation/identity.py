"""By what a kept result is known to be of this collection, these settings and these models."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from rerank_integrations.core.models.checkpoint import hub_commit, reading_fingerprint
from rerank_integrations.core.models.options import LoadOptions
from rerank_integrations.errors import MissingExtraError
from rerank_integrations.evaluation.data import Dataset
from rerank_integrations.evaluation.pipelines import Pipeline
from rerank_integrations.evaluation.pooled import full_name

_RULES = "4"  # raise it when anything is measured in another way
_PACKAGES = ("bm25s", "ir_measures", "jinja2", "scipy", "Stemmer", "yaml")


def identity(pipeline: Pipeline, data: Dataset, callers: Sequence[int]) -> dict[str, Any]:
    """Return what a result must be of, not to be measured again; its models by their files."""
    models = {f"{kind} {name}": model_identity(kind, name) for kind, name in pipeline.models()}
    return {
        "rules": _RULES,
        "pipeline": pipeline.options(),
        "models": models,
        "data": data.facts(),
        "callers": list(callers),
    }


def model_identity(kind: str, name: str) -> str:
    """Return what tells a model's files from others: a fingerprint, or of a model on the hub its commit."""
    options = LoadOptions(full_name(name) if kind == "dense" else name)
    # On the hub: its files may not all be here yet.
    return reading_fingerprint(options, kind) if options.is_local else hub_commit(options)


def require_installed() -> None:
    """Raise `MissingExtraError` unless all is there that an evaluation and its report need."""
    if not all(map(importlib.util.find_spec, _PACKAGES)):
        raise MissingExtraError("evaluate", "evaluation")
