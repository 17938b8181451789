"""Converted graphs are cached: made once, complete or not at all, and equal wherever the folder is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import ENGLISH, QUERIES

import rerank_integrations
from rerank_integrations import CrossEncoderModel, MissingExtraError

BACKENDS = ["onnx", "openvino"]
DATA = {"onnx": "model.onnx.data", "openvino": "model.bin"}
TEXTS = ENGLISH[:6]


@pytest.fixture
def own_cache(graph_cache: Path, cross_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the test's own cache folder, with copies of the cross-encoder's graphs."""
    folder = tmp_path / "elsewhere"
    for backend in BACKENDS:
        made = CrossEncoderModel(cross_encoder_dir, backend=backend, dtype="float32").converted_path
        assert made is not None
        assert made.parent.parent == graph_cache
        shutil.copytree(made, folder / "graphs" / made.name)
    monkeypatch.setenv("RERANK_INTEGRATIONS_CACHE", str(folder))
    return folder


def score(path: Path, backend: str) -> list[float]:
    """Return the scores of a newly loaded copy."""
    model = CrossEncoderModel(path, backend=backend, dtype="float32")
    model.unload()
    scores = model.score(QUERIES[0], TEXTS)
    model.unload()
    return scores


def graph_of(cache: Path, backend: str) -> Path:
    (folder,) = (cache / "graphs").glob(f"cross-encoder-{backend}-float32-*/")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kept_graph_is_used_as_it_lies_and_wherever_it_lies(
    own_cache: Path, cross_encoder_dir: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without what converts: a graph that was made elsewhere needs its runtime alone.
    for name in ("onnxscript", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    before = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*") if path.suffix != ".lock"}
    assert len(score(cross_encoder_dir, backend)) == len(TEXTS)
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*") if path.suffix != ".lock"} == before


@pytest.mark.parametrize(
    ("backend", "harm"),
    [
        ("openvino", "changed"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [("onnx", "changed"), ("openvino", "cut"), ("openvino", "lost"), ("openvino", "no list")]
        ),
    ],
)
def test_a_damaged_graph_is_made_anew(own_cache: Path, cross_encoder_dir: Path, backend: str, harm: str) -> None:
    expected = score(cross_encoder_dir, backend)
    data = graph_of(own_cache, backend) / DATA[backend]
    content = data.read_bytes()
    if harm == "changed":
        data.write_bytes(content[:5000] + bytes([content[5000] ^ 255]) + content[5001:])
    elif harm == "cut":
        data.write_bytes(content[:5000])
    elif harm == "lost":
        data.unlink()
    else:
        (data.parent / "files.json").write_text("{")
    assert score(cross_encoder_dir, backend) == pytest.approx(expected, abs=1e-6)
    assert data.stat().st_size == len(content)
    if harm != "no list":
        assert data.read_bytes() == content


@pytest.mark.slow
def test_what_a_killed_conversion_left_is_removed(own_cache: Path, cross_encoder_dir: Path) -> None:
    graph = graph_of(own_cache, "openvino")
    left = graph.parent / f"{graph.name}.work-dead"
    shutil.move(graph, left)
    score(cross_encoder_dir, "openvino")
    assert graph.is_dir()
    assert not left.exists()


def test_no_path_of_this_machine_is_inside(own_cache: Path) -> None:
    package = Path(rerank_integrations.__file__).parent
    places = [str(place).encode() for place in (own_cache, Path.home(), package, Path(sys.prefix), Path.cwd())]
    files = [path for path in own_cache.rglob("*") if path.is_file()]
    assert files
    assert [path.name for path in files for place in places if place in path.read_bytes()] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_its_library_the_error_names_the_command(
    cross_encoder_dir: Path, graph_cache: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, {"onnx": "onnxruntime", "openvino": "openvino"}[backend], None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'rerank-integrations\[{backend}\]'"):
        score(cross_encoder_dir, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_the_exporter_the_error_names_the_command(
    cross_encoder_dir: Path, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_INTEGRATIONS_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'rerank-integrations\[{backend}\]'"):
        score(cross_encoder_dir, backend)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


CONVERT = """
import sys
from rerank_integrations import CrossEncoderModel
print(CrossEncoderModel(sys.argv[1], backend="openvino", dtype="int8").score("why is Mars red", ["iron", "a museum"]))
"""


@pytest.mark.slow
def test_two_processes_at_once_make_one_graph(
    cross_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_INTEGRATIONS_CACHE", str(tmp_path))
    command = [sys.executable, "-c", CONVERT, str(cross_encoder_dir)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert len([path for path in (tmp_path / "graphs").iterdir() if path.is_dir()]) == 1
