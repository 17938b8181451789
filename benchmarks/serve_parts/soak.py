"""Mixed load on the service with restarts: every answer compared with a model of the state, memory sampled.

Each of several callers has passages of its own in a common index, and stores, replaces and deletes only those. So it
knows what every one of its searches, lookups and rerankings must answer, although the others change the index
meanwhile. A write that a restart interrupts may have happened as a whole or not at all; the caller looks which, and
goes on from there.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rerank_integrations import ColBERTIndex, ColBERTModel, Passage
from serve_parts.http import Connection, ConnectionLostError, request_bytes
from serve_parts.model import LOGIT_TOLERANCE, MAXSIM_TOLERANCE, Scores, rerank_problem, search_problem
from serve_parts.processes import Service

CALLERS = 8
SLOTS = 24
QUERIES = 16
TEXTS = 60
COMMON = 40
SAMPLE_SECONDS = 2.0
# The lives of the process before the last one, which memory is measured in, take this part of the time together.
EARLY_LIVES = 4
EARLY_SHARE = 0.4
# Refused for now: a full queue, a service that stops.
TRY_AGAIN = frozenset({429, 503})


@dataclass
class Soak:
    """What the callers share: the service of the moment, the right scores, and what was counted."""

    scores: Scores
    queries: list[str]
    texts: list[str]
    common: dict[str, str]
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    address: str = ""
    up: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    over: bool = False

    def wrong(self, problem: str) -> None:
        """Count a wrong answer."""
        self.counts["wrong"] += 1
        self.problems.append(problem)


class Caller:
    """A caller and the state of its passages: texts by id."""

    def __init__(self, soak: Soak, number: int) -> None:
        self._soak, self._number = soak, number
        self._drawn = random.Random(number)
        self.state: dict[str, str] = {}
        self._connection: Connection | None = None
        # What a write that was interrupted would have made of the state.
        self._perhaps: dict[str, str] | None = None

    async def run(self) -> None:
        """Make requests until the end of the soak."""
        kinds = [self._search] * 4 + [self._rerank] * 2 + [self._rerank_stored, self._get, self._list]
        kinds += [self._upsert] * 3 + [self._delete, self._delete_by_filter]
        while not self._soak.over:
            await self._soak.up.wait()
            if self._soak.over:
                return
            try:
                if self._perhaps is not None:
                    await self._resolve()
                kind = self._drawn.choice(kinds)
                await kind()
                self._soak.kinds[kind.__name__.strip("_")] += 1
                self._soak.counts["requests"] += 1
            except ConnectionLostError as error:
                self._soak.counts["interrupted"] += 1
                if not self._soak.stopping and self._soak.up.is_set():
                    self._soak.wrong(f"a connection was lost: {error}")
                self._connection = None
                await asyncio.sleep(0.05)

    async def _send(
        self, method: str, path: str, body: object = None, params: list[tuple[str, str]] | None = None
    ) -> Any:
        """Return the body of the answer, after as many attempts as the service asks for."""
        request = request_bytes(method, path, body, params)
        while True:
            address = self._soak.address
            if self._connection is None or self._connection.address != address:
                self._connection = Connection(address)
            status, content = await self._connection.send(request)
            if status in TRY_AGAIN:
                self._soak.counts["refused"] += 1
                if status == 503:
                    raise ConnectionLostError("the service stops")
                await asyncio.sleep(0.1)
                continue
            if status != 200:
                self._soak.wrong(f"{method} {path} was answered {status}: {content[:300]!r}")
                return None
            return json.loads(content)

    def _check(self, kind: str, problem: str | None) -> None:
        if problem is not None:
            self._soak.wrong(f"{kind} of caller {self._number}: {problem}")

    @property
    def _own(self) -> dict[str, object]:
        return {"owner": self._number}

    async def _search(self) -> None:
        query = self._drawn.choice(self._soak.queries)
        own = self._drawn.random() < 0.6
        passages = dict(self.state) if own else self._soak.common
        where = self._own if own else {"owner": -1}
        k = self._drawn.choice((1, 5, 10, 50))
        answer = await self._send("POST", "/v1/search", {"query": query, "k": k, "where": where})
        if answer is not None:
            self._check("search", search_problem(self._soak.scores, query, passages, k, answer["hits"]))

    async def _rerank(self) -> None:
        query = self._drawn.choice(self._soak.queries)
        texts = self._drawn.sample(self._soak.texts, self._drawn.randrange(1, 12))
        answer = await self._send("POST", "/v2/rerank", {"model": "starter", "query": query, "documents": texts})
        if answer is not None:
            right = self._soak.scores.logit
            self._check("rerank", rerank_problem(right, LOGIT_TOLERANCE, query, texts, answer["results"]))

    async def _rerank_stored(self) -> None:
        """Rerank stored passages beside a text that is not stored, by the index's model and vectors."""
        query = self._drawn.choice(self._soak.queries)
        chosen = dict(self._drawn.sample(sorted(self.state.items()), min(5, len(self.state))))
        documents: list[object] = [{"id": key, "text": text} for key, text in chosen.items()]
        texts = [*chosen.values(), self._drawn.choice(self._soak.texts)]
        body = {"model": "docs", "query": query, "documents": [*documents, texts[-1]]}
        answer = await self._send("POST", "/v2/rerank", body)
        if answer is not None:
            right = self._soak.scores.maxsim
            self._check("rerank_stored", rerank_problem(right, MAXSIM_TOLERANCE, query, texts, answer["results"]))

    async def _get(self) -> None:
        key = self._key(self._drawn.randrange(SLOTS))
        answer = await self._send("GET", "/v1/passages", params=[("id", key)])
        if answer is not None:
            expected = [self.state[key]] if key in self.state else []
            given = [passage["text"] for passage in answer["passages"]]
            self._check("get", None if given == expected else f"{given} for {expected}")

    async def _list(self) -> None:
        stored = await self._stored()
        if stored is not None and stored != self.state:
            different = sorted(set(stored.items()) ^ set(self.state.items()))
            self._check("list", f"it differs from the state in {different[:3]}")

    async def _stored(self) -> dict[str, str] | None:
        answer = await self._send("GET", "/v1/passages", params=[("where", json.dumps(self._own))])
        return None if answer is None else {passage["id"]: passage["text"] for passage in answer["passages"]}

    async def _upsert(self) -> None:
        slots = self._drawn.sample(range(SLOTS), self._drawn.randrange(1, 5))
        new = {self._key(slot): self._drawn.choice(self._soak.texts) for slot in slots}
        self._perhaps = {**self.state, **new}
        passages = [
            {"id": key, "text": text, "metadata": {**self._own, "slot": slot}}
            for slot, (key, text) in zip(slots, new.items(), strict=True)
        ]
        answer = await self._send("PUT", "/v1/passages", {"passages": passages})
        if answer is not None:
            self._written()
            self._check("upsert", None if answer["ids"] == list(new) else f"ids {answer['ids']} for {list(new)}")

    async def _delete(self) -> None:
        keys = [self._key(slot) for slot in self._drawn.sample(range(SLOTS), 3)]
        await self._remove([("id", key) for key in keys], {key for key in keys if key in self.state})

    async def _delete_by_filter(self) -> None:
        first = self._drawn.randrange(SLOTS)
        where = {**self._own, "slot": {"$gte": first, "$lt": first + 4}}
        keys = {self._key(slot) for slot in range(first, first + 4)} & self.state.keys()
        await self._remove([("where", json.dumps(where))], keys)

    async def _remove(self, params: list[tuple[str, str]], keys: set[str]) -> None:
        self._perhaps = {key: text for key, text in self.state.items() if key not in keys}
        answer = await self._send("DELETE", "/v1/passages", params=params)
        if answer is not None:
            self._written()
            self._check("delete", None if answer["deleted"] == len(keys) else f"{answer} for {sorted(keys)}")

    def _written(self) -> None:
        assert self._perhaps is not None
        self.state, self._perhaps = self._perhaps, None

    async def _resolve(self) -> None:
        """Look whether the interrupted write happened."""
        stored = await self._stored()
        if stored is None:
            return
        assert self._perhaps is not None
        if stored == self._perhaps != self.state:
            self._soak.counts["interrupted_but_stored"] += 1
        elif stored != self.state:
            self._check("restart", "the state is neither that before the last write nor that after it")
        self.state, self._perhaps = stored, None

    def _key(self, slot: int) -> str:
        return f"caller-{self._number}-{slot}"


def soak(path: Path, passages: Sequence[Passage], minutes: float) -> None:
    """Print what came of mixed load, with restarts by turns of SIGTERM and SIGKILL in the first part of the time.

    Raises
    ------
    SystemExit
        If an answer was wrong.
    """
    words = [" ".join(passage.text.split()[:40]) for passage in passages]
    texts = list(dict.fromkeys(words))[:TEXTS]
    queries = [" ".join(text.split()[:8]) for text in texts[:QUERIES]]
    common = {f"common-{number}": text for number, text in enumerate(texts[:COMMON])}
    with ColBERTIndex.create(path, ColBERTModel("starter")) as index:
        index.upsert([Passage(key, text, {"owner": -1}) for key, text in common.items()], show_progress=False)
    state = Soak(Scores(queries, texts), queries, texts, common)
    samples, callers = asyncio.run(_run(state, path, 60 * minutes))
    _compare_index(path, state, callers)
    for problem in state.problems[:10]:
        print(f"wrong: {problem}", file=sys.stderr)
    print(f"answers by kind: {dict(state.kinds)}", file=sys.stderr)
    counts = {name: state.counts[name] for name in ("requests", "interrupted", "interrupted_but_stored", "refused")}
    print(
        f"minutes={minutes:g} restarts={EARLY_LIVES} callers={CALLERS} "
        + " ".join(f"{name}={value}" for name, value in counts.items())
        + f" {_memory(samples)} load={os.getloadavg()[0]:.1f} wrong={state.counts['wrong']}"
    )
    if state.counts["wrong"]:
        raise SystemExit("some answers were wrong")


async def _run(state: Soak, path: Path, seconds: float) -> tuple[list[tuple[float, dict[str, float]]], list[Caller]]:
    """Run the callers through all lives of the service; return the memory of the last one by time, and the callers."""
    callers = [Caller(state, number) for number in range(CALLERS)]
    tasks = [asyncio.create_task(caller.run()) for caller in callers]
    samples: list[tuple[float, dict[str, float]]] = []
    for life in range(EARLY_LIVES + 1):
        is_last = life == EARLY_LIVES
        service = await asyncio.to_thread(Service, path, writable="true")
        state.address, state.stopping = service.address, False
        state.up.set()
        share = 1 - EARLY_SHARE if is_last else EARLY_SHARE / EARLY_LIVES
        samples = await _watch(service, seconds * share, state)
        state.stopping, state.over = True, is_last
        if not is_last:
            state.up.clear()
        stop = signal.SIGKILL if life % 2 else signal.SIGTERM
        if is_last:
            # All callers have their last answers first, so that the index can be compared with their states.
            await asyncio.gather(*tasks)
        status = await asyncio.to_thread(service.stop, stop)
        if stop == signal.SIGTERM and status != 0:
            state.wrong(f"the service ended with status {status}")
        if service.errors:
            print(f"the service logged: {''.join(service.errors)[:2000]}", file=sys.stderr)
    return samples, callers


async def _watch(service: Service, seconds: float, state: Soak) -> list[tuple[float, dict[str, float]]]:
    """Sample the memory of the service for so long."""
    start, samples = time.monotonic(), []
    while (passed := time.monotonic() - start) < seconds:
        samples.append((passed / 60, service.megabytes()))
        if service.process.poll() is not None:
            state.wrong("the service has ended by itself")
            break
        await asyncio.sleep(min(SAMPLE_SECONDS, seconds / 20))
    return samples


def _compare_index(path: Path, state: Soak, callers: Sequence[Caller]) -> None:
    """Verify the index that is left, and compare all that it stores with what was answered."""
    expected = dict(state.common)
    for caller in callers:
        expected |= caller.state
    with ColBERTIndex.open(path, ColBERTModel("starter"), read_only=True) as index:
        index.verify()
        stored = {passage.id: passage.text for passage in index.get(where={})}
    if stored != expected:
        state.wrong(f"the index differs in {sorted(set(stored.items()) ^ set(expected.items()))[:3]}")


def _memory(samples: Sequence[tuple[float, dict[str, float]]]) -> str:
    """Return the highest values of the last life, and the slopes of its last two thirds.

    A slope is the median of the slopes between all pairs of samples (Theil and Sen), which a few peaks do not move.
    """
    last = samples[len(samples) // 3 :]
    minutes = np.array([minute for minute, _ in last])
    first, second = np.triu_indices(len(last), 1)
    parts = []
    for name in ("Rss", "Pss", "Anonymous"):
        values = np.array([sample[name] for _, sample in last])
        slopes = (values[second] - values[first]) / (minutes[second] - minutes[first])
        highest = max(sample[name] for _, sample in samples)
        parts.append(f"{name.lower()}_mb_per_minute={np.median(slopes):.2f} {name.lower()}_peak_mb={highest:.0f}")
        shown = " ".join(f"{sample[name]:.0f}" for _, sample in samples[:: max(1, len(samples) // 12)])
        print(f"{name} in MB over the last {samples[-1][0]:.1f} minutes: {shown}", file=sys.stderr)
    return " ".join(parts)
