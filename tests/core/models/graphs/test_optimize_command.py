"""``rerank-integrations optimize``; not in tests/cli, which also runs where no backend is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerank_integrations import ColBERTModel
from rerank_integrations.cli import main


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["optimize", *map(str, arguments)])
    written = capsys.readouterr()
    return int(left.value.code or 0), written.out, written.err


@pytest.mark.usefixtures("graph_cache")
@pytest.mark.parametrize("backend", [pytest.param("onnx", marks=pytest.mark.slow), "openvino"])
def test_it_converts_and_tells_where_and_how_exactly(
    colbert_dir: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [colbert_dir, "--kind", "colbert", "--backend", backend, "--json"]
    code, out, err = call(capsys, *model, "--dtype", "float32")
    assert code == 0, err
    exact = json.loads(out)
    assert exact["against_torch_float32"]["largest_difference"] < 1e-4
    assert exact["against_torch_float32"]["same_order"] == 1
    folder = Path(exact["path"])
    assert exact["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    loaded = ColBERTModel(colbert_dir, backend=backend, dtype="float32")
    assert loaded.converted_path == folder
    assert loaded.graph == folder

    code, out, err = call(capsys, *model)
    if code == 1:
        # Nothing of this test depends on the processor, but whether its kernels are right does.
        assert "strays too far from torch on this processor" in err
        return
    rounded = json.loads(out)
    assert rounded["dtype"] == "int8"
    assert rounded["path"] != exact["path"]
    assert 1e-4 < rounded["against_torch_float32"]["largest_difference"] < 1
    # An error of a third of the spread, the most that is served, leaves 0.9; some of 112 pairs of few texts are close.
    assert 0.8 < rounded["against_torch_float32"]["same_order"] <= 1


@pytest.mark.slow
@pytest.mark.usefixtures("graph_cache")
def test_without_json_it_is_a_table(colbert_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, colbert_dir, "--kind", "colbert")
    assert code == 0
    # A long path folds the title.
    assert "openvino, int8" in " ".join(out.split())
    assert "same order" in out


def test_a_checkpoint_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = call(capsys, tmp_path / "absent", "--kind", "cross-encoder")
    assert (code, out) == (1, "")
    assert "absent" in err
