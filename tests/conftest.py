"""Checkpoints and models for every test, all made locally: no test uses a network."""

from __future__ import annotations

import gc
import os

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from rerank_integrations import ColBERTModel, CrossEncoderModel

# No test is timed: on a busy machine an example may take any while.
settings.register_profile("untimed", parent=settings.default, deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--frameworks",
        default="langchain,llama-index",
        help="comma-separated frameworks that this environment has; tests of the adapters run for these",
    )


@pytest.fixture(scope="module", autouse=True)
def frozen_garbage() -> None:
    """Exclude what there is from later collections: with torch and both frameworks each would take half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def code_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Redirect the copy of checkpoints' code from the user's cache to a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("modules")
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder))
        patch.setattr(sys, "path", [*sys.path])
        yield


@pytest.fixture(scope="session")
def colbert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from checkpoints import write_multi_vector

    return write_multi_vector(tmp_path_factory.mktemp("checkpoints") / "multi-vector")


@pytest.fixture(scope="session")
def stanford_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from checkpoints import write_stanford_colbert

    return write_stanford_colbert(tmp_path_factory.mktemp("checkpoints") / "stanford")


@pytest.fixture(scope="session")
def pylate_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from checkpoints import write_pylate_colbert

    return write_pylate_colbert(tmp_path_factory.mktemp("checkpoints") / "pylate")


@pytest.fixture(scope="session")
def cross_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from checkpoints import write_cross_encoder

    return write_cross_encoder(tmp_path_factory.mktemp("checkpoints") / "cross-encoder")


@pytest.fixture(scope="session")
def graph_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return one cache folder for the session, because converting a model takes seconds."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RERANK_INTEGRATIONS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def colbert(colbert_dir: Path) -> ColBERTModel:
    from rerank_integrations import ColBERTModel

    return ColBERTModel(str(colbert_dir), dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def cross_encoder(cross_encoder_dir: Path) -> CrossEncoderModel:
    from rerank_integrations import CrossEncoderModel

    return CrossEncoderModel(str(cross_encoder_dir), dtype="float32", device="cpu")
