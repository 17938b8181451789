"""A graph that deviates from torch on this processor is not used; a slower backend is, with a warning."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import ENGLISH, QUERIES

from rerank_integrations import CrossEncoderModel, FidelityWarning, loaded_models
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.core.models.graphs.probes import Probe, load_probes, relative_error, save_probes
from rerank_integrations.core.models.graphs.serving import faithful_session
from rerank_integrations.core.models.graphs.sessions import Arrays, GraphSession

TEXTS = ENGLISH[:8]


def shuffle_weights(path: Path) -> None:
    """Change the weights of the graph at `path`: outputs have the right form and are meaningless."""
    import openvino
    from openvino import opset13

    model = openvino.Core().read_model(path)
    generator = np.random.default_rng(0)
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "Constant" and operation.get_element_type() == openvino.Type.f32:
            weights = operation.data
            if weights.ndim == 2 and weights.size > 1000:
                other = generator.permutation(weights.ravel()).reshape(weights.shape)
                operation.output(0).replace(opset13.constant(other).output(0))
    openvino.save_model(model, path.with_name("other.xml"), compress_to_fp16=False)
    del model
    for suffix in (".xml", ".bin"):
        path.with_name(f"other{suffix}").replace(path.with_suffix(suffix))


@pytest.fixture
def strayed(
    graph_cache: Path, cross_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CrossEncoderModel]:
    """Return a model whose graph has the right checksums but computes something else."""
    made = CrossEncoderModel(cross_encoder_dir, backend="openvino", dtype="float32").converted_path
    assert made is not None
    folder = Path(shutil.copytree(made, tmp_path / "graphs" / made.name))
    shuffle_weights(folder / "model.xml")
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    (folder / "files.json").write_text(json.dumps({name: sums[name] for name in sums if name != "files.json"}))
    monkeypatch.setenv("RERANK_INTEGRATIONS_CACHE", str(tmp_path))
    model = CrossEncoderModel(cross_encoder_dir, backend="openvino", dtype="float32")
    model.unload()
    yield model
    model.unload()


def test_a_strayed_graph_is_not_served(strayed: CrossEncoderModel, cross_encoder_dir: Path) -> None:
    with pytest.warns(FidelityWarning) as told:
        scores = strayed.score(QUERIES[0], TEXTS)
    exact = CrossEncoderModel(cross_encoder_dir, dtype="float32", device="cpu")
    assert scores == pytest.approx(exact.score(QUERIES[0], TEXTS), abs=1e-6)
    assert strayed.converted_path is None
    assert "torch" in [one.backend for one in loaded_models()]
    (warning,) = told
    assert warning.filename == __file__
    for said in ("backend='openvino'", "dtype='float32'", "times the spread", "at most 0.01", "pass backend='torch'"):
        assert said in str(warning.message)


def probes(count: int = 4) -> list[Probe]:
    """Return probes with token vectors of texts of several lengths, and with scores: an encoder's two outputs."""
    generator = np.random.default_rng(1)
    ids = [np.arange(2 * (3 + number)).reshape(2, -1) for number in range(count)]
    expected = [generator.normal(size=(*each.shape, 6)).astype(np.float32) for each in ids]
    return [
        Probe({"input_ids": each, "attention_mask": np.ones_like(each)}, output, np.ones(each.shape, bool))
        for each, output in zip(ids, expected, strict=True)
    ]


class Stand(GraphSession):
    """Session whose error is a given multiple of the spread."""

    extra = library = filename = "none"
    has_precisions = True

    def __init__(self, known: list[Probe], error: float) -> None:
        self._known, self._error = {probe.inputs["input_ids"].shape: probe.expected for probe in known}, error
        self.inputs = ("input_ids",)

    @classmethod
    def write(cls, source: Path, folder: Path, *, int8: bool) -> None:
        raise NotImplementedError

    def run(self, arrays: Arrays) -> Any:
        expected = self._known[arrays["input_ids"].shape]
        noise = np.random.default_rng(expected.size).choice([-1.0, 1.0], expected.shape)
        return (expected + self._error * noise).astype(np.float32)


class Failing(Stand):
    """Session whose runtime lacks a kernel."""

    def run(self, arrays: Arrays) -> Any:
        raise RuntimeError("somewhere in a library\nno kernel")


@pytest.mark.parametrize("error", [0.0, 0.02, 0.3, 1.4, float("nan")])
def test_the_error_is_a_share_of_the_spread(error: float) -> None:
    known = probes()
    found = relative_error(Stand(known, error), known)
    # The vectors have a spread of 1 within the few numbers that they are.
    assert found == pytest.approx(error, rel=0.15, nan_ok=True)


@pytest.mark.parametrize(
    ("backend", "dtype", "errors", "served"),
    [
        ("openvino", "int8", {"int8": 0.1, "float32": 0.0}, "int8"),
        ("openvino", "int8", {"int8": 1.4, "float32": 0.05}, "float32"),
        ("openvino", "int8", {"int8": float("nan"), "float32": 0.05}, "float32"),
        ("openvino", "int8", {"int8": 1.4, "float32": 1.4}, None),
        # ONNX Runtime knows a single way to compute a graph.
        ("onnx", "int8", {"int8": 1.4, "float32": 0.0}, None),
        ("openvino", "float32", {"float32": 0.1}, None),
        ("openvino", "float32", {"float32": 1e-5}, "float32"),
    ],
)
def test_the_next_best_is_served(backend: str, dtype: str, errors: dict[str, float], served: str | None) -> None:
    known = probes()
    sessions = {name: Stand(known, error) for name, error in errors.items()}
    options = LoadOptions("a model", backend=backend, dtype=dtype)
    if served == dtype:
        assert faithful_session(options, sessions.__getitem__, known) == (sessions[served], served)
        return
    with pytest.warns(FidelityWarning, match="a model"):
        session, _ = faithful_session(options, sessions.__getitem__, known)
    assert session is (None if served is None else sessions[served])


def test_a_graph_that_does_not_run_on_the_processor_gives_way() -> None:
    known = probes()
    sessions = {"auto": Failing(known, 0.0), "float32": Stand(known, 0.0)}
    with pytest.warns(
        FidelityWarning, match=r"does not run on this processor \(RuntimeError: no kernel\). openvino in"
    ):
        session, dtype = faithful_session(LoadOptions("a model", backend="openvino"), sessions.__getitem__, known)
    assert (session, dtype) == (sessions["float32"], "float32")


def test_the_most_that_is_served_leaves_nine_of_ten_pairs_in_order() -> None:
    generator = np.random.default_rng(2)
    scores = generator.normal(size=400)
    rounded = scores + generator.normal(size=400) / 3
    orders = [(scores[a] > scores[b]) == (rounded[a] > rounded[b]) for a, b in combinations(range(400), 2)]
    assert np.mean(orders) == pytest.approx(0.9, abs=0.02)


def test_probes_come_back_as_they_were_stored(tmp_path: Path) -> None:
    known = probes()
    save_probes(known, tmp_path)
    for ours, theirs in zip(load_probes(tmp_path), known, strict=True):
        assert set(ours.inputs) == set(theirs.inputs)
        for name, array in theirs.inputs.items():
            np.testing.assert_array_equal(ours.inputs[name], array)
        np.testing.assert_array_equal(ours.expected, theirs.expected)
        np.testing.assert_array_equal(ours.real, theirs.real)


def test_openvino_is_loaded_without_what_reports_its_use() -> None:
    pytest.importorskip("openvino_telemetry", reason="OpenVINO's usage reports are not installed")
    code = """
import sys
from rerank_integrations.core.models.graphs.sessions import _openvino
_openvino().Core()
assert "openvino.tools.ovc" in sys.modules and "openvino_telemetry" not in sys.modules
import openvino_telemetry
"""
    subprocess.run([sys.executable, "-c", code], check=True)
