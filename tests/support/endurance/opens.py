"""Open and search an index again and again beside writers that replace a passage as fast as they can."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from toy import ToyEncoder

from rerank_integrations import ColBERTIndex

READERS = 3


@dataclass
class _Opening:
    """Counts and events shared by the threads that open the index."""

    path: Path
    remaining: Iterator[int]
    lock: threading.Lock = field(default_factory=threading.Lock)
    alarms: list[str] = field(default_factory=list)
    wrong: int = 0

    def run(self) -> None:
        while self._next():
            try:
                with ColBERTIndex.open(self.path, ToyEncoder(), read_only=True) as index:
                    hits = index.search("text 2", 3)
            except Exception as error:
                self.alarms.append(repr(error))
                continue
            self.wrong += len({hit.id for hit in hits}) != 3

    def _next(self) -> bool:
        with self.lock:
            return next(self.remaining, None) is not None


def run(count: int, seed: int) -> dict[str, int]:
    """Open the index `count` times from three threads; any error is a false alarm, because nothing is damaged."""
    with tempfile.TemporaryDirectory(prefix="opens-") as folder:
        opening = _Opening(Path(folder) / "index", iter(range(count)))
        with ColBERTIndex.create(opening.path, ToyEncoder()) as writer:
            for segment in range(6):
                writer.upsert([f"text {segment} {number}" for number in range(3)])
            readers = [threading.Thread(target=opening.run) for _ in range(READERS)]
            for thread in readers:
                thread.start()
            commits = 0
            while any(thread.is_alive() for thread in readers):
                writer.upsert([{"id": "x", "text": f"new {commits % 50}"}])
                commits += 1
            writer.verify()
    for alarm in sorted(set(opening.alarms)):
        print(alarm, file=sys.stderr)
    return {"all": count, "commits": commits, "false_alarms": len(opening.alarms), "wrong": opening.wrong}
