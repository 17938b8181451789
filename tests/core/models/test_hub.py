"""Models by name: from the hub, from its cache where the hub is not reached, and what is said where neither has them.

The hubs are sockets of this machine. `huggingface_hub` reads its settings once; the tests set what it has read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rerank_integrations import (
    CheckpointError,
    ColBERTModel,
    CrossEncoderModel,
    InsufficientMemoryError,
    InvalidInputError,
    RerankError,
)
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.core.models.loading import load_guarded

COMMIT = "a" * 40
TEXTS = ["a text", "another one"]
_numbers = itertools.count()


@pytest.fixture
def cache(tmp_path: Path, cross_encoder_dir: Path) -> Path:
    """Return a cache folder of the hub's client with one complete model, acme/reranker."""
    folder = tmp_path / "hub"
    repository = folder / "models--acme--reranker"
    (repository / "refs").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(cross_encoder_dir, repository / "snapshots" / COMMIT)
    return folder


def use_hub(monkeypatch: pytest.MonkeyPatch, endpoint: str, *, offline: bool = False) -> str:
    """Point the hub's client at `endpoint`, under a new name, because answers are remembered for a while."""
    endpoint = f"{endpoint}/{next(_numbers)}"
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", endpoint + template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    return endpoint


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return use_hub(monkeypatch, f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def silent_hub() -> Iterator[tuple[str, list[object]]]:
    """Accept every connection and never answer, as where packets are dropped; yield the connections."""
    connections: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connections.append(server.accept())

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", connections


@contextlib.contextmanager
def empty_hub() -> Iterator[tuple[str, list[str]]]:
    """Serve a hub that has no model; yield the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def failure(model: ColBERTModel | CrossEncoderModel) -> str:
    with pytest.raises(CheckpointError) as refusal:
        model.score("a query", TEXTS)
    return str(refusal.value)


@pytest.mark.parametrize("kind", [ColBERTModel, CrossEncoderModel])
def test_an_unreachable_hub_is_not_an_absent_model(
    kind: type[ColBERTModel] | type[CrossEncoderModel], refused: str, tmp_path: Path
) -> None:
    said = failure(kind("acme/absent", cache_folder=str(tmp_path)))
    for part in (
        "acme/absent",
        refused,
        "not reached over the network",
        str(tmp_path),
        "local_files_only",
        "'starter'",
    ):
        assert part in said


def test_a_cached_model_needs_no_network(refused: str, cache: Path, cross_encoder: CrossEncoderModel) -> None:
    model = CrossEncoderModel("acme/reranker", cache_folder=str(cache), dtype="float32", device="cpu")
    assert model.score("a query", TEXTS) == pytest.approx(cross_encoder.score("a query", TEXTS), abs=1e-6)
    assert model.fingerprint == cross_encoder.fingerprint
    model.unload()


def test_a_hub_that_does_not_answer_is_asked_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, cross_encoder: CrossEncoderModel
) -> None:
    with silent_hub() as (endpoint, connections):
        use_hub(monkeypatch, endpoint)
        model = CrossEncoderModel("acme/reranker", cache_folder=str(cache), dtype="float32", device="cpu")
        assert model.score("a query", TEXTS) == pytest.approx(cross_encoder.score("a query", TEXTS), abs=1e-6)
        model.unload()
        said = failure(ColBERTModel("acme/absent", cache_folder=str(cache)))
        assert "no answer within 1 s" in said or "Timeout" in said
        assert len(connections) == 1


def test_a_switch_is_named_and_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with silent_hub() as (endpoint, connections):
        use_hub(monkeypatch, endpoint, offline=True)
        said = failure(CrossEncoderModel("acme/absent", cache_folder=str(tmp_path)))
        assert "HF_HUB_OFFLINE is set" in said
        assert str(tmp_path) in said
        use_hub(monkeypatch, endpoint)
        said = failure(CrossEncoderModel("acme/absent", cache_folder=str(tmp_path), local_files_only=True))
        assert "local_files_only is True" in said
        assert "local_files_only=False fetches it" in said
        assert connections == []


def test_a_hub_that_has_no_such_model_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with empty_hub() as (endpoint, asked):
        use_hub(monkeypatch, endpoint)
        said = failure(CrossEncoderModel("acme/absent", cache_folder=str(tmp_path)))
        assert "acme/absent" in said
        assert "not reached" not in said
        assert any("acme/absent" in path for path in asked)


def test_what_can_be_no_name_on_the_hub_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with empty_hub() as (endpoint, asked):
        use_hub(monkeypatch, endpoint)
        assert "there is no such folder" in failure(CrossEncoderModel(tmp_path / "absent"))
        (tmp_path / "empty").mkdir()
        assert "in that folder" in failure(ColBERTModel(tmp_path / "empty"))
        assert asked == []


def test_a_cached_model_that_lacks_its_weights_says_why_they_were_not_fetched(refused: str, cache: Path) -> None:
    (cache / "models--acme--reranker" / "snapshots" / COMMIT / "model.safetensors").unlink()
    said = failure(CrossEncoderModel("acme/reranker", cache_folder=str(cache), device="cpu"))
    assert "cannot be loaded" in said
    assert "not reached over the network" in said
    assert str(cache) in said


@pytest.mark.parametrize("device", ["cuda:99", "no-device"])
@pytest.mark.parametrize("kind", [ColBERTModel, CrossEncoderModel])
def test_a_device_that_is_not_there_is_named_and_nobody_is_asked(
    kind: type[ColBERTModel] | type[CrossEncoderModel], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent_hub() as (endpoint, connections):
        use_hub(monkeypatch, endpoint)
        with pytest.raises(InvalidInputError, match=f"device is '{device}'"):
            kind("starter", device=device).score("a query", TEXTS)
        assert connections == []


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (MemoryError(), InsufficientMemoryError, "does not fit into the memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), InsufficientMemoryError, "unload_all"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), InsufficientMemoryError, "smaller model"),
        (ImportError("install sentencepiece"), CheckpointError, "needs a library that is not installed"),
        (OSError(24, "Too many open files"), CheckpointError, "the operating system refused"),
        (ValueError("a header"), CheckpointError, "expected a complete checkpoint"),
    ],
)
def test_advice_fits_the_cause(error: Exception, kind: type[RerankError], said: str, tmp_path: Path) -> None:
    def load() -> None:
        raise error

    with pytest.raises(kind, match=said) as refusal:
        load_guarded(LoadOptions(str(tmp_path), device="cpu"), load)
    assert type(refusal.value) is kind
    assert ("complete checkpoint" in str(refusal.value)) == isinstance(error, ValueError)


@pytest.mark.slow
def test_python_without_docstrings_is_named() -> None:
    code = "from rerank_integrations import CrossEncoderModel\nCrossEncoderModel('starter').score('a', ['b'])"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=False)
    # A version of transformers that does without them is welcome too.
    assert done.returncode == 0 or "without -OO" in done.stderr


@pytest.mark.slow
def test_the_environment_rules_a_process(cache: Path, tmp_path: Path) -> None:
    code = (
        "from rerank_integrations import CrossEncoderModel\n"
        "print(len(CrossEncoderModel('acme/reranker').score('a query', ['a text'])))\n"
        "try:\n    CrossEncoderModel('acme/absent').score('a query', ['a text'])\n"
        "except Exception as error:\n    print(error)\n"
    )
    settings = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    settings |= {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=settings)
    assert done.stdout.startswith("1\n"), done.stderr
    assert "http://127.0.0.1:9 was not reached" in done.stdout
    assert "Retry" not in done.stderr
