"""The report's tables, as text: quality, cost, and how it was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rerank_integrations.evaluation.measuring import STAGES, Measured, Origin
from rerank_integrations.evaluation.pipelines import STARTER, RerankRecord, RetrieveRecord
from rerank_integrations.evaluation.summary import COMPARED_BY, NOT_COMPRESSED, PERCENTILES, Row

T = TypeVar("T", bound=Hashable)

_UNKNOWN = "–"


@dataclass(frozen=True)
class Table:
    """A table of text whose rows begin with a name.

    Parameters
    ----------
    groups
        Headings over several columns, each with the number of its columns.
    rows
        Each row's name, and one cell per heading.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    groups: tuple[tuple[str, int], ...] = ()
    note: str = ""


def quality_table(rows: Sequence[Row]) -> Table:
    """Return the means of the metrics, and their differences from the first row."""
    first = rows[0]
    best = {name: _best([row.quality[name] for row in rows]) for name in first.quality}
    cells = []
    for row in rows:
        values = tuple(f"{'▲ ' if value == best[name] else ''}{value:.3f}" for name, value in row.quality.items())
        cells.append((row.label, (*values, *_difference(row, first))))
    headings = (*first.quality, f"{COMPARED_BY} − first", "p", "difference")
    note = (
        f"▲ the best of its column. The difference is of {COMPARED_BY} from that of {first.label}, the first row, with "
        "the p-value of a paired t-test over the queries, not corrected for the number of pipelines; ~ from 0.05 on "
        "it may be chance, * below it is significant."
    )
    if any(row.label != row.name for row in rows):
        note = f"{note} {NOT_COMPRESSED}"
    return Table("Quality, means over the queries", headings, tuple(cells), note=note)


def _best(values: Sequence[float]) -> float | None:
    return max(values) if len(set(values)) > 1 else None


def _difference(row: Row, first: Row) -> tuple[str, str, str]:
    if row is first:
        return _UNKNOWN, _UNKNOWN, "first row"
    # Adding 0 turns -0 into 0.
    by = f"{round(row.quality[COMPARED_BY] - first.quality[COMPARED_BY], 3) + 0.0:+.3f}"
    if row.p_value is None:
        return by, _UNKNOWN, "none" if row.quality == first.quality else "too few queries"
    p_value = "< 0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
    return by, p_value, "~ may be chance" if row.may_be_chance else "* significant"


def latency_table(rows: Sequence[Row]) -> Table:
    """Return the percentiles of each stage and of the total."""
    parts = (*STAGES, "total")
    headings = tuple(f"p{percentile}" for _ in parts for percentile in PERCENTILES)
    cells = [(row.label, tuple(_decimals(ms) for part in parts for ms in row.ms[part])) for row in rows]
    groups = tuple((part, len(PERCENTILES)) for part in parts)
    return Table("Latency of a query by stage, milliseconds", headings, tuple(cells), groups)


def size_table(rows: Sequence[Row]) -> Table:
    """Return queries per second, time to build and memory; GPU memory too if any pipeline was measured with a GPU."""
    callers = sorted({count for row in rows for count in row.per_s})
    gpu = any(row.gpu_mb is not None for row in rows)
    rates = tuple(f"{count} caller{'s' if count > 1 else ''}" for count in callers)
    sizes = ("build, s", "index, MB", "peak memory, MB", *(("GPU memory, MB",) if gpu else ()))
    cells = []
    for row in rows:
        costs = (row.build_s, row.index_mb, row.peak_mb, *((row.gpu_mb,) if gpu else ()))
        cells.append((row.label, (*(_decimals(row.per_s.get(count)) for count in callers), *map(_decimals, costs))))
    groups = (("queries a second by", len(rates)), ("what it takes", len(sizes)))
    note = "The index in units of 10⁶ bytes; memory, the process's highest, in units of 2²⁰ bytes."
    return Table("Throughput, time to build and memory", (*rates, *sizes), tuple(cells), groups, note)


def _decimals(value: float | None) -> str:
    if value is None or math.isnan(value):
        return _UNKNOWN
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 1 else f"{value:.2f}"


def pipelines_table(results: Sequence[Measured]) -> Table:
    """Return the stages of each pipeline."""
    cells = [
        (
            str(result.pipeline["name"]),
            (
                _retriever(result.pipeline["retrieve"], result.compressed),
                ", then ".join(_reranker(stage, result.compressed) for stage in result.pipeline["rerank"]) or _UNKNOWN,
                str(result.origin.get("measured_at", "not recorded"))[:16].replace("T", " "),
            ),
        )
        for result in results
    ]
    return Table("The pipelines", ("retrieves", "reranks", "measured at (UTC)"), tuple(cells))


def _retriever(stage: RetrieveRecord, compressed: Mapping[str, bool]) -> str:
    kind, model = stage["kind"], f" {stage['model']}" if stage["model"] else ""
    # The depth of your own retriever is not known.
    depth = f", the best {stage['depth']}" if stage["depth"] else ""
    return f"{kind}{model}{_bits(stage, compressed)}{depth}"


def _reranker(stage: RerankRecord, compressed: Mapping[str, bool]) -> str:
    return f"{stage['kind']} {stage['model']}{_bits(stage, compressed)} over {stage['candidates']}"


def _bits(stage: RetrieveRecord | RerankRecord, compressed: Mapping[str, bool]) -> str:
    if stage["kind"] != "colbert":
        return ""
    bits, retrieves = stage.get("nbits"), "depth" in stage
    if bits is None:
        return ", exact" if retrieves else ", encoding anew"
    if not compressed.get(stage["model"] or STARTER, True):
        return ", not compressed"
    return ", 1 bit" if bits == 1 else f", {bits} bits"


def facts_table(data: Mapping[str, object]) -> Table:
    """Return the facts of the collection."""
    named = {"name": "name", "passages": "passages", "queries": "queries with judgements", "crc32": "checksum (CRC-32)"}
    return Table("The collection", ("",), tuple((named[key], (_fact(data.get(key)),)) for key in named))


def machine_tables(results: Sequence[Measured]) -> list[Table]:
    """Return one table per machine on which some of the results were measured, with its versions."""
    groups = _by(results, lambda result: tuple(_machine(result.origin).items()))
    return [
        Table(_caption("Machine", names, len(groups)), ("",), tuple((name, (value,)) for name, value in machine))
        for machine, names in groups.items()
    ]


def threads_table(results: Sequence[Measured]) -> Table:
    """Return the threads on which results were measured."""
    groups = _by(results, lambda result: str(result.origin.get("threads") or "not recorded"))
    cells = [(", ".join(names), (threads,)) for threads, names in groups.items()]
    return Table("Threads", ("",), tuple(cells))


def commands_table(results: Sequence[Measured]) -> Table:
    """Return the commands that measured the results."""
    groups = _by(results, lambda result: str(result.origin.get("command") or "not recorded"))
    cells = [(", ".join(names), (command,)) for command, names in groups.items()]
    return Table("Measured by", ("",), tuple(cells))


def _by(results: Sequence[Measured], key: Callable[[Measured], T]) -> dict[T, list[str]]:
    groups: dict[T, list[str]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(str(result.pipeline["name"]))
    return groups


def _caption(what: str, names: Sequence[str], groups: int) -> str:
    return what if groups == 1 else f"{what} of {', '.join(names)}"


def _machine(origin: Origin) -> dict[str, str]:
    if not origin:
        return {"machine": "not recorded: measured by an earlier version"}
    versions = origin.get("packages") or {}
    memory = origin.get("memory_gb")
    return {
        "processor": _fact(origin.get("processor")),
        "cores": _fact(origin.get("cores")),
        "memory": _UNKNOWN if memory is None else f"{memory} GiB",
        "GPU": ", ".join(origin.get("gpus") or ()) or "none",
        "system": _fact(origin.get("os")),
        "Python": _fact(origin.get("python")),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()) or _UNKNOWN,
    }


def _fact(value: object) -> str:
    if value is None:
        return _UNKNOWN
    return f"{value:,}" if isinstance(value, int) else str(value)
