"""The load generator, a process of its own: requests of many callers, each of which waits for its answer.

    python benchmarks/serve_parts/generator.py

It reads jobs from the standard input, one JSON object per line (``address``, ``requests``, ``callers``), and writes for
each a line with the seconds of every request, its status and body, and its own seconds of processor time. Bodies are
parsed and compared with the right answers by the reader, outside of the time that is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from serve_parts.http import Connection


async def load(address: str, requests: list[bytes], callers: int) -> dict[str, Any]:
    """Send `requests`, `callers` at a time; return seconds and answers by the number of the request."""
    answers: list[Any] = [None] * len(requests)
    waiting = iter(enumerate(requests))
    connections = [Connection(address) for _ in range(callers)]
    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*(_caller(connection, waiting, answers) for connection in connections))
    total, cpu = time.perf_counter() - start, time.process_time() - cpu
    for connection in connections:
        connection.close()
    return {"answers": answers, "total": total, "cpu": cpu}


async def _caller(connection: Connection, waiting: Iterator[tuple[int, bytes]], answers: list[Any]) -> None:
    for number, request in waiting:
        start = time.perf_counter()
        status, body = await connection.send(request)
        answers[number] = (time.perf_counter() - start, status, body.decode())


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        requests = [request.encode("latin-1") for request in job["requests"]]
        result = asyncio.run(load(job["address"], requests, job["callers"]))
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
