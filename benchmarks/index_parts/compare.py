"""Comparison of our index with colbert-ai and fast-plaid on the same vectors, one engine after the other."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from engines.environments import EngineUnavailableError, environment
from rich.table import Table

from index_parts.bench import Bench
from index_parts.data import recall
from index_parts.ours import DEEP, Built, K, Setting

# The speed of a setting with a lower recall is not compared.
FLOOR = 0.87
WORKERS = Path(__file__).resolve().parents[1] / "engines"
NBITS = 2

_OURS = {
    NBITS: (
        Setting("default"),
        *(Setting(f"n_candidates={count}", {"n_candidates": count}) for count in (32, 64, 128)),
        Setting("exact", {"exact": True}),
    ),
    4: (Setting("default"), Setting("exact", {"exact": True})),
    1: (Setting("default"), Setting("exact", {"exact": True})),
}


@dataclass(frozen=True)
class Result:
    """Measurements of one setting of one engine."""

    engine: str
    setting: str
    p50_ms: float
    p95_ms: float
    recall10: float
    recall100: float
    per_s: dict[int, float]


def compare(bench: Bench) -> None:
    """Measure every engine that can be installed; print one table and the ratios."""
    count = bench.sizes.compared
    tokens = int(bench.corpus.lengths[:count].sum())
    title = f"{count} passages, {tokens} tokens, {len(bench.queries.texts)} queries; recall against exact MaxSim"
    table = Table(*_HEADINGS, title=title)
    results = {nbits: _ours(bench, table, nbits) for nbits in _OURS}
    build = bench.index(count, NBITS).seconds
    for name in ("colbert-ai", "fast-plaid"):
        try:
            report = _engine(bench, name, count)
        except EngineUnavailableError as error:
            bench.tell(f"{name} is left out: {error}")
            continue
        others = _theirs(bench, table, name, report, tokens)
        bench.note(f"{name}_build_ratio", report["build_s"] / build)
        _ratio(bench, name, results[NBITS], others)
    bench.show(table)


_HEADINGS = (
    "engine",
    "setting",
    "build s",
    "B/token",
    "less catalog",
    "build peak MB",
    "p50 ms",
    "p95 ms",
    "1 caller /s",
    "8 callers /s",
    "recall@10",
    "recall@100",
)


def _ours(bench: Bench, table: Table, nbits: int) -> list[Result]:
    count = bench.sizes.compared
    built = bench.index(count, nbits)
    searched = bench.search(built.path, list(_OURS[nbits]), deep=True, callers=True)
    wanted = bench.exact(count, DEEP)
    engine = f"ours_{nbits}bit"
    _note_build(bench, engine, built)
    results = []
    for answers in searched.answers:
        recall10, deep = recall(answers.found, wanted, K), recall(answers.deep, wanted, DEEP)
        result = Result(engine, answers.name, answers.p50_ms, answers.p95_ms, recall10, deep, answers.per_s)
        bench.note(f"{engine}_{answers.name}_p95_over_p50", answers.p95_ms / answers.p50_ms)
        bench.note(f"{engine}_{answers.name}_identical", answers.identical)
        if not answers.identical:
            bench.failures.append(f"{engine} {answers.name}: concurrent answers differ from the serial ones")
        size = [f"{built.bytes_per_token:.1f}", f"{built.vector_bytes_per_token:.1f}"]
        _row(bench, table, result, [f"{built.seconds:.1f}", *size, f"{built.peak_mb:.0f}"])
        results.append(result)
    return results


def _theirs(bench: Bench, table: Table, name: str, report: dict[str, Any], tokens: int) -> list[Result]:
    wanted = bench.exact(bench.sizes.compared, DEEP)
    bench.note(f"{name}_build_s", report["build_s"])
    bench.note(f"{name}_bytes_per_token", report["bytes"] / tokens)
    bench.note(f"{name}_build_peak_mb", report["build_peak_mb"])
    results = []
    for setting in report["settings"]:
        recall10, deep = recall(setting["top"], wanted, K), recall(setting["top"], wanted, DEEP)
        per_s = {int(callers): value for callers, value in setting.get("per_s", {}).items()}
        result = Result(name, setting["name"], setting["p50_ms"], setting["p95_ms"], recall10, deep, per_s)
        size = f"{report['bytes'] / tokens:.1f}"
        _row(bench, table, result, [f"{report['build_s']:.1f}", size, size, f"{report['build_peak_mb']:.0f}"])
        results.append(result)
    return results


def _note_build(bench: Bench, engine: str, built: Built) -> None:
    bench.note(f"{engine}_build_s", built.seconds)
    bench.note(f"{engine}_bytes_per_token", built.bytes_per_token)
    bench.note(f"{engine}_vector_bytes_per_token", built.vector_bytes_per_token)
    bench.note(f"{engine}_build_peak_mb", built.peak_mb)


def _row(bench: Bench, table: Table, result: Result, build: Sequence[str]) -> None:
    speeds = [f"{result.per_s[callers]:.0f}" if callers in result.per_s else "" for callers in (1, 8)]
    recalls = [f"{result.recall10:.3f}", f"{result.recall100:.3f}"]
    times = [f"{result.p50_ms:.2f}", f"{result.p95_ms:.2f}"]
    table.add_row(result.engine, result.setting, *build, *times, *speeds, *recalls)
    stem = f"{result.engine}_{result.setting}"
    for key in ("p50_ms", "p95_ms", "recall10", "recall100"):
        bench.note(f"{stem}_{key}", getattr(result, key))
    for callers, value in result.per_s.items():
        bench.note(f"{stem}_per_s_{callers}", value)


def _ratio(bench: Bench, name: str, ours: list[Result], others: list[Result]) -> None:
    """Add our speed relative to the other engine's fastest good setting, at the same recall or a higher one."""
    good = [result for result in others if result.recall10 >= FLOOR]
    if not good:
        bench.tell(f"{name} has no setting of recall@10 >= {FLOOR}: speed is compared with its best one")
        good = [max(others, key=lambda result: result.recall10)]
    theirs = min(good, key=lambda result: result.p50_ms)
    enough = [result for result in ours if result.recall10 >= max(theirs.recall10, FLOOR)]
    if not enough:
        bench.tell(f"ours has no setting of the recall of {name}, {theirs.setting}: no ratio")
        return
    mine = min(enough, key=lambda result: result.p50_ms)
    bench.tell(
        f"{name} {theirs.setting}: {theirs.p50_ms:.2f} ms at recall {theirs.recall10:.3f}; "
        f"ours {mine.setting}: {mine.p50_ms:.2f} ms at {mine.recall10:.3f}"
    )
    bench.note(f"{name}_speed_ratio", theirs.p50_ms / mine.p50_ms)
    bench.note(f"{name}_speed_ratio_at_recall", theirs.recall10)


def _engine(bench: Bench, name: str, count: int) -> dict[str, Any]:
    if bench.quick and name == "fast-plaid":
        raise EngineUnavailableError("it takes too long for --quick")
    bench.tell(f"{name}: its environment")
    python = environment(name, bench.cache)
    vectors = bench.work / "vectors"
    if not vectors.exists():
        _write_vectors(bench, vectors, count)
    out = bench.work / f"{name}.json"
    worker = WORKERS / f"{name.replace('-', '_')}.py"
    bench.tell(f"{name}: building and searching")
    start = time.perf_counter()
    command = [str(python), str(worker), "--vectors", str(vectors), "--out", str(out), "--nbits", str(NBITS)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise EngineUnavailableError(f"it failed, exit code {done.returncode}: {done.stderr[-500:]}")
    bench.tell(f"{name}: done in {time.perf_counter() - start:.0f} s")
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def _write_vectors(bench: Bench, folder: Path, count: int) -> None:
    folder.mkdir()
    np.save(folder / "passages.npy", bench.corpus.tokens(0, count))
    np.save(folder / "lengths.npy", bench.corpus.lengths[:count].astype(np.int32))
    np.save(folder / "queries.npy", np.concatenate(bench.queries.vectors))
    np.save(folder / "query_lengths.npy", np.array([len(query) for query in bench.queries.vectors], dtype=np.int32))
