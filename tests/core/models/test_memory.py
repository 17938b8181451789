"""Users of a loaded model, when it is unloaded, and that its memory is released."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import re
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from rerank_integrations import (
    ColBERTIndex,
    ColBERTModel,
    CrossEncoderModel,
    InvalidInputError,
    LoadedModel,
    loaded_models,
    unload_all,
)

Model = ColBERTModel | CrossEncoderModel
Make = Callable[..., Model]
TEXTS = ["Mars looks red because its soil holds iron.", "The museum is closed on Mondays."]
QUERY = "why is Mars red"


# Where the two kinds have nothing of their own.
either = pytest.mark.parametrize("kind", ["cross-encoder"])


@pytest.fixture(params=["colbert", "cross-encoder"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def checkpoint(kind: str, colbert_dir: Path, cross_encoder_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(colbert_dir if kind == "colbert" else cross_encoder_dir, tmp_path / "model"))


@pytest.fixture
def make(kind: str, checkpoint: Path) -> Iterator[Make]:
    """Return a function that makes models of a checkpoint of this test alone; ``short=True`` truncates every text."""

    def build(*, short: bool = False, **arguments: object) -> Model:
        if short:
            arguments["document_length" if kind == "colbert" else "max_length"] = 8
        model = ColBERTModel if kind == "colbert" else CrossEncoderModel
        return model(checkpoint, **{"dtype": "float32", "device": "cpu", **arguments})  # type: ignore[arg-type]

    yield build
    build().unload()


@pytest.fixture
def held(checkpoint: Path) -> Callable[[], LoadedModel | None]:
    """Return a function that lists the loaded models of that checkpoint."""
    return lambda: next((loaded for loaded in loaded_models() if loaded.name == str(checkpoint)), None)


Held = Callable[[], "LoadedModel | None"]


def score(model: Model) -> list[float]:
    return model.score(QUERY, TEXTS)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "still not so after a minute"
        time.sleep(0.01)


@contextlib.contextmanager
def during_a_call(act: Callable[[], None]) -> Iterator[None]:
    """Run `act` during a call that truncates texts: at the moment when Python shows its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_, **__: act()
        yield


@either
def test_nothing_is_listed_before_its_first_use(make: Make, held: Held) -> None:
    model = make()
    assert held() is None
    score(model)
    assert held() is not None


def test_a_loaded_model_is_described(make: Make, kind: str, checkpoint: Path, held: Held) -> None:
    score(make())
    found = held()
    assert found is not None
    assert (found.kind, found.device, found.dtype, found.backend) == (kind, "cpu", "float32", "torch")
    assert found.calls_in_flight == 0
    assert 0 <= found.idle_seconds < 60
    assert found.bytes == pytest.approx(4 * stored_numbers(checkpoint), rel=0.05)
    with pytest.raises(AttributeError):
        found.users = 3  # type: ignore[misc]


@either
def test_each_number_format_is_listed_with_its_size(make: Make, checkpoint: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        score(make(dtype=dtype))
    sizes = {found.dtype: found.bytes for found in loaded_models() if found.name == str(checkpoint)}
    make(dtype="bfloat16").unload()
    assert set(sizes) == {"float32", "bfloat16"}
    assert sizes["bfloat16"] == pytest.approx(2 * stored_numbers(checkpoint), rel=0.1)


def stored_numbers(checkpoint: Path) -> int:
    count = 0
    for file in checkpoint.rglob("*.safetensors"):
        with safe_open(file, framework="np") as weights:
            count += sum(weights.get_tensor(name).size for name in weights.keys())  # noqa: SIM118
    return count


@either
def test_users_are_the_live_objects_of_a_specification(make: Make, held: Held) -> None:
    model = make()
    score(model)
    others = [make(batch_size=2), make(), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    other_specification = make(dtype="bfloat16")
    assert users(held) == 5
    for left in (4, 3, 2, 1):
        others.pop()
        assert users(held) == left
    assert score(model)
    del model, other_specification
    assert users(held) == 0
    make()
    assert users(held) == 0


@either
def test_an_object_in_a_cycle_is_a_user_until_it_is_collected(make: Make, held: Held) -> None:
    kept, cycle = make(), [make()]
    cycle.append(cycle)  # type: ignore[arg-type]
    score(kept)
    assert users(held) == 2
    del cycle
    gc.collect()
    assert users(held) == 1


@either
def test_objects_come_and_go_on_many_threads(make: Make, held: Held) -> None:
    kept = make()
    score(kept)

    def churn() -> None:
        for _ in range(10):
            cycle = [make()]
            cycle.append(cycle)  # type: ignore[arg-type]
            assert users(held) >= 1

    in_threads([churn] * 8)
    gc.collect()
    assert users(held) == 1


def users(held: Held) -> int:
    found = held()
    assert found is not None
    return found.users


@either
def test_a_finalizer_may_unload(make: Make, held: Held) -> None:
    """The garbage collector runs it at any moment, on any thread, also while the pool is busy."""
    expected = score(make())

    class Owner:
        def __init__(self) -> None:
            self.model, self.cycle = make(), self

        def __del__(self) -> None:
            self.model.unload()

    def churn() -> None:
        for _ in range(30):
            Owner()
            held()

    threshold = gc.get_threshold()
    gc.set_threshold(20)
    try:
        in_threads([churn] * 4)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert held() is None
    assert score(make()) == expected


def test_a_call_in_flight_is_counted(make: Make, held: Held) -> None:
    seen: list[LoadedModel | None] = []
    model = make(short=True)
    with during_a_call(lambda: seen.append(held())):
        score(model)
    assert [(found.calls_in_flight, found.idle_seconds) for found in seen if found] == [(1, 0.0)]
    found = held()
    assert found is not None
    assert found.calls_in_flight == 0


def test_a_call_finishes_on_the_copy_that_was_unloaded_meanwhile(make: Make, held: Held) -> None:
    seen: list[LoadedModel | None] = []
    model = make(short=True)

    def unload() -> None:
        model.unload()
        seen.append(held())

    with during_a_call(unload):
        cut = score(model)
        assert cut == score(make(short=True))
    assert seen[0] is None


def test_a_failed_load_is_no_loaded_model(make: Make, checkpoint: Path, held: Held) -> None:
    config = checkpoint / "config.json"
    text = config.read_text()
    config.unlink()
    (checkpoint / "modules.json").unlink(missing_ok=True)
    model = make(idle_timeout=0)
    with pytest.raises(Exception, match="no checkpoint"):
        score(model)
    assert held() is None
    config.write_text(text)
    model.unload()


@pytest.mark.slow
def test_sixteen_threads_score_while_another_unloads(make: Make, held: Held) -> None:
    model = make()
    expected = score(model)
    done = threading.Event()
    answers: list[list[float]] = []

    def ask() -> None:
        while not done.is_set():
            answers.append(score(model))

    def unload() -> None:
        try:
            for asked in (20, 40, 60):
                wait_until(lambda asked=asked: len(answers) > asked)
                model.unload()
                loaded_models()
        finally:
            done.set()

    in_threads([*[ask] * 16, unload])
    assert len(answers) > 60
    assert answers == [expected] * len(answers)
    model.unload()
    assert held() is None


def in_threads(jobs: list[Callable[[], None]]) -> None:
    """Run each job on its own thread; raise the error of the first that fails."""
    errors: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


@either
def test_unload_all(make: Make) -> None:
    models = [make(), make(dtype="bfloat16")]
    expected = [score(model) for model in models]
    assert len(loaded_models()) >= 2
    unload_all()
    assert loaded_models() == []
    unload_all()
    assert [score(model) for model in models] == expected
    models[1].unload()


@pytest.mark.slow
def test_an_idle_model_goes_and_comes_back(make: Make, held: Held) -> None:
    model = make(idle_timeout=0.05)
    expected = score(model)
    for _ in range(3):
        wait_until(lambda: held() is None)
        assert score(model) == expected


@either
def test_a_model_of_which_no_object_is_left_goes_too(make: Make, held: Held) -> None:
    score(make(idle_timeout=0.05))
    wait_until(lambda: held() is None)


@either
def test_the_longest_time_out_rules(make: Make, held: Held) -> None:
    brief, long, never = make(idle_timeout=0.05), make(idle_timeout=0.4), make()
    score(brief)
    time.sleep(0.6)
    assert users(held) == 3  # one of them may sleep on it for ever
    del never
    wait_until(lambda: held() is None)
    score(brief)
    started = time.monotonic()
    wait_until(lambda: held() is None)
    assert time.monotonic() - started > 0.3
    assert long.name == brief.name


def test_no_time_out_ends_a_call_in_flight(make: Make, held: Held) -> None:
    seen: list[LoadedModel | None] = []
    model = make(short=True, idle_timeout=0)

    def wait() -> None:
        time.sleep(0.3)
        seen.append(held())

    with during_a_call(wait):
        score(model)
    assert [found.calls_in_flight for found in seen if found] == [1]
    wait_until(lambda: held() is None)


@either
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="a thread's switches are read from /proc")
def test_the_thread_that_sees_to_it_sleeps(make: Make, held: Held) -> None:
    """The thread sleeps even when a time-out has passed and a call in flight still uses the model."""
    switches: list[int] = []
    score(make(idle_timeout=0))  # starts it
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "rerank-integrations-idle")
    assert thread.daemon

    def watch() -> None:
        for _ in range(2):
            time.sleep(0.3)
            status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
            switches.append(sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line))

    with during_a_call(watch):
        score(make(short=True, idle_timeout=0))
    wait_until(lambda: held() is None)
    watch()
    # Looking every millisecond would make hundreds.
    assert switches[1] - switches[0] < 10
    assert switches[3] - switches[2] < 10


@either
@pytest.mark.parametrize("wrong", [-1, -0.5, True, float("nan"), float("inf"), 10**400, "60", b"", []])
def test_a_time_out_is_a_number_of_seconds(make: Make, wrong: object) -> None:
    with pytest.raises(InvalidInputError, match=r"idle_timeout is .*; expected a number of seconds"):
        make(idle_timeout=wrong)


def test_the_time_out_is_written_down_with_the_model(make: Make) -> None:
    model = make(idle_timeout=600)
    assert model.options()["idle_timeout"] == 600
    assert pickle.loads(pickle.dumps(model)).options() == model.options()
    assert type(model)(**model.options()).options() == model.options()
    assert "idle_timeout" not in make().options()


def test_an_index_does_not_record_a_time_out(tmp_path: Path) -> None:
    ColBERTIndex.create(tmp_path / "index", ColBERTModel("starter", batch_size=8, idle_timeout=600)).close()
    with ColBERTIndex.open(tmp_path / "index") as index:
        assert index.model.options() == {"name_or_path": "starter", "batch_size": 8}


def test_the_page_about_memory_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "memory.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    unload_all()
    exec("".join(blocks), {})
    assert len(blocks) == 3
    assert capsys.readouterr().out.startswith("starter colbert cpu ")
    assert loaded_models() == []
