"""Fork while threads search an index and commits arrive; each child must search at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from grown import small_copy
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex

# Seconds after which a child without an answer hangs, however busy the machine is.
PATIENCE_S = 60


def run(count: int, seed: int) -> dict[str, int]:
    """Fork `count` children, half of them beside an exact index, half beside a compressed one."""
    counts = {"all": 0, "hung": 0, "failed": 0}
    for compressed in (False, True):
        with tempfile.TemporaryDirectory(prefix="forks-") as folder:
            path = Path(folder) / "index"
            if compressed:
                small_copy(path)
            else:
                ColBERTIndex.create(path, ToyEncoder()).close()
            for ending in _fork_under_load(path, count // 2):
                counts["all"] += 1
                if ending is not None:
                    counts[ending] += 1
    return counts


def _fork_under_load(path: Path, count: int) -> Iterator[str | None]:
    with (
        ColBERTIndex.open(path, ToyEncoder()) as writer,
        ColBERTIndex.open(path, ToyEncoder(), read_only=True) as reader,
    ):
        writer.upsert([{"id": f"a{number}", "text": f"word {number} fox"} for number in range(200)])
        numbers = iter(range(1 << 40))
        work: list[Callable[[], object]] = [lambda: reader.search("fox 3", 3)] * 6
        work.append(lambda: writer.upsert([{"id": "x", "text": f"new {next(numbers) % 50}"}]))
        with _busy(work):
            for _ in range(count):
                time.sleep(0.003)
                yield _ending(_forked(lambda: len(reader.search("fox 3", 3)) == 3))


@contextlib.contextmanager
def _busy(work: list[Callable[[], object]]) -> Iterator[None]:
    """Repeat each task in its own thread."""
    done = threading.Event()

    def repeat(call: Callable[[], object]) -> None:
        while not done.is_set():
            call()

    threads = [threading.Thread(target=repeat, args=(call,)) for call in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _forked(check: Callable[[], bool]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        os._exit(0 if check() else 1)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(2)


def _ending(child: int) -> str | None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "failed" if status else None
        time.sleep(0.002)
    print(f"child {child} hangs", file=sys.stderr)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"
