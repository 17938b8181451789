"""Nothing loads before it is used, each specification loads once, and `unload` lets go of it.

Whether a checkpoint was read is seen from outside: once its directory is gone, only what is loaded can answer.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from checkpoints import write_cross_encoder, write_multi_vector

from rerank_integrations import CheckpointError, ColBERTModel, CrossEncoderModel

Model = ColBERTModel | CrossEncoderModel
TEXTS = ["Mars looks red because its soil holds iron.", "The museum is closed on Mondays."]
QUERY = "why is Mars red"


def score(model: Model) -> list[float]:
    return model.score(QUERY, TEXTS)


@pytest.fixture(params=["colbert", "cross-encoder"])
def make(request: pytest.FixtureRequest) -> Callable[..., Model]:
    kind: type[Model] = ColBERTModel if request.param == "colbert" else CrossEncoderModel

    def build(path: Path, **arguments: object) -> Model:
        return kind(path, **{"dtype": "float32", "device": "cpu", **arguments})  # type: ignore[arg-type]

    return build


@pytest.fixture
def checkpoint(make: Callable[..., Model], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    colbert = request.node.callspec.params["make"] == "colbert"
    return write_multi_vector(tmp_path / "model") if colbert else write_cross_encoder(tmp_path / "model")


LAZY = """
import sys
import rerank_integrations as ri
models = [ri.ColBERTModel("x"), ri.CrossEncoderModel("y"), ri.ColBERTModel("starter"), ri.ColBERTModel(device="cuda")]
repr(models), models[0].name, models[0].options()
heavy = {"torch", "transformers", "sentence_transformers", "langchain_core", "llama_index"} & set(sys.modules)
assert not heavy, heavy
"""


def test_import_and_construction_load_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_construction_touches_no_file(make: Callable[..., Model], tmp_path: Path) -> None:
    model = make(tmp_path / "absent")
    with pytest.raises(CheckpointError):
        score(model)


def test_equal_specifications_share_one_loaded_copy(
    make: Callable[..., Model], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score(make(checkpoint))
    monkeypatch.chdir(checkpoint.parent)
    others = [make(checkpoint), make(str(checkpoint)), make(checkpoint, batch_size=2)]
    (checkpoint / "model.safetensors").unlink()
    for other in others:
        assert score(other) == pytest.approx(expected, abs=1e-6)
    assert score(make(Path(checkpoint.name))) == expected  # the same place, by a relative path


def test_another_dtype_is_another_copy(make: Callable[..., Model], checkpoint: Path) -> None:
    exact = score(make(checkpoint))
    half = score(make(checkpoint, dtype="bfloat16"))
    assert half != exact
    assert half == pytest.approx(exact, rel=0.1, abs=0.05)
    shutil.rmtree(checkpoint)
    assert score(make(checkpoint)) == exact
    assert score(make(checkpoint, dtype="bfloat16")) == half
    with pytest.raises(CheckpointError):
        score(make(checkpoint, dtype="float16"))


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="what the processor can do is read from /proc/cpuinfo")
def test_auto_computes_in_bfloat16_where_the_processor_does(make: Callable[..., Model], checkpoint: Path) -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    native = bool({"avx512_bf16", "amx_tile"} & flags)
    expected, other = ("bfloat16", "float32") if native else ("float32", "bfloat16")
    auto = score(make(checkpoint, dtype="auto"))
    assert auto == score(make(checkpoint, dtype=expected))
    assert auto != score(make(checkpoint, dtype=other))


def test_unload_lets_go_for_every_sharer_and_use_loads_again(make: Callable[..., Model], checkpoint: Path) -> None:
    first, second = make(checkpoint), make(checkpoint)
    expected = score(first)
    assert score(second) == expected
    first.unload()
    first.unload()  # nothing to drop: no error
    assert score(second) == expected  # loaded again
    second.unload()
    shutil.rmtree(checkpoint)
    for model in (first, second):
        with pytest.raises(CheckpointError):
            score(model)


def test_unload_before_first_use_is_harmless(make: Callable[..., Model], checkpoint: Path) -> None:
    model = make(checkpoint)
    model.unload()
    assert len(score(model)) == len(TEXTS)


def test_concurrent_first_use_loads_once(make: Callable[..., Model], checkpoint: Path, tmp_path: Path) -> None:
    """Sixteen threads start together, each with its own instance; the files are read as often as by one."""
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    with opened_in(other) as alone:
        expected = score(make(other))
    start = threading.Barrier(16)

    def first_use(_: int) -> list[float]:
        model = make(checkpoint)
        start.wait()
        return score(model)

    with opened_in(checkpoint) as together, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(first_use, range(16)))
    assert answers == [expected] * 16
    assert "config.json" in alone
    assert together == alone


@contextlib.contextmanager
def opened_in(folder: Path) -> Iterator[Counter[str]]:
    """Count the files below `folder` that Python opens, by name; by the interpreter's own audit events."""
    opened: Counter[str] = Counter()
    active = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if active and event == "open" and str(arguments[0]).startswith(str(folder)):
            opened[Path(str(arguments[0])).name] += 1

    sys.addaudithook(hook)
    try:
        yield opened
    finally:
        active = False
