"""Growth, upserts and filters of our index."""

from __future__ import annotations

import shutil

import numpy as np
from rich.table import Table

from index_parts import ours
from index_parts.bench import Bench
from index_parts.data import ADDED, best, recall
from index_parts.ours import Answers, K, Setting

_DEFAULT = Setting("default")
_ADD_STEP = 1000


def _default_answers(bench: Bench, count: int) -> Answers:
    """Search the index of `count` passages with default settings, once per run."""
    if count not in bench.searched:
        bench.searched[count] = bench.search(bench.index(count).path, [_DEFAULT]).answers[0]
    return bench.searched[count]


def growth(bench: Bench) -> None:
    """Build an index of each size from nothing; search each in a process of its own."""
    headings = ("passages", "tokens", "build s", "build peak MB", "B/token", "less catalog", "reopen s")
    table = Table(
        *headings, "RSS MB", "of which not files", "p50 ms", "p95 ms", "recall@10", title="growth, 2 bits, defaults"
    )
    for count in bench.sizes.growth:
        built = bench.index(count)
        searched = bench.search(built.path, [_DEFAULT])
        answers = bench.searched[count] = searched.answers[0]
        recall10 = recall(answers.found, bench.exact(count, K), K)
        table.add_row(
            str(count),
            str(built.tokens),
            f"{built.seconds:.1f}",
            f"{built.peak_mb:.0f}",
            f"{built.bytes_per_token:.1f}",
            f"{built.vector_bytes_per_token:.1f}",
            f"{searched.reopen_s:.3f}",
            f"{searched.rss_mb:.0f}",
            f"{searched.anonymous_mb:.0f}",
            f"{answers.p50_ms:.2f}",
            f"{answers.p95_ms:.2f}",
            f"{recall10:.3f}",
        )
        figures = {
            "tokens": built.tokens,
            "build_s": built.seconds,
            "build_peak_mb": built.peak_mb,
            "bytes_per_token": built.bytes_per_token,
            "vector_bytes_per_token": built.vector_bytes_per_token,
            "reopen_s": searched.reopen_s,
            "rss_mb": searched.rss_mb,
            "p50_ms": answers.p50_ms,
            "p95_ms": answers.p95_ms,
            "recall10": recall10,
        }
        for name, value in figures.items():
            bench.note(f"growth_{count}_{name}", value)
    bench.show(table)


def filters(bench: Bench) -> None:
    """Filter the largest index down to shares of it; the filtered set's exact MaxSim is the reference."""
    count = bench.sizes.largest
    limits = {"50 %": count // 2, "5 %": count // 20, "0.1 %": count // 1000, "one": 1}
    wheres = {name: {"where": {"rank": {"$lt": below}}} for name, below in limits.items()}
    settings = [_DEFAULT, *(Setting(name, where) for name, where in wheres.items())]
    thorough = [Setting(name, {**where, "exact": True}) for name, where in wheres.items()]
    answers = bench.search(bench.index(count).path, settings).answers
    # The best recall that the codec allows on the filtered set; the search is to blame only for what is missing beyond.
    ceilings = bench.search(bench.index(count).path, thorough).answers
    ranks = np.array(bench.ranks[:count])
    plain = answers[0].p50_ms
    headings = (
        "kept",
        "matching",
        "hits as wanted",
        "recall@10",
        "with exact=True",
        "p50 ms",
        "p95 ms",
        "p50 over unfiltered",
    )
    table = Table(*headings, "first call ms", title=f"filters on {count} passages; without one p50 is {plain:.2f} ms")
    for filtered, ceiling, below in zip(answers[1:], ceilings, limits.values(), strict=True):
        allowed = ranks < below
        right = all(len(hits) == min(K, below) and allowed[hits].all() for hits in filtered.found)
        if not right:
            bench.failures.append(f"the filter that keeps {filtered.name}: other hits than min(k, matching)")
        wanted = best(bench.scores[:, :count], K, allowed)
        share, most = recall(filtered.found, wanted, K), recall(ceiling.found, wanted, K)
        p50, p95, first = filtered.p50_ms, filtered.p95_ms, filtered.first_ms
        times = [f"{p50:.2f}", f"{p95:.2f}", f"{p50 / plain:.2f}", f"{first:.1f}"]
        table.add_row(filtered.name, str(below), str(right), f"{share:.3f}", f"{most:.3f}", *times)
        stem = f"filter_{below}_of_{count}"
        bench.note(f"{stem}_hits_right", right)
        bench.note(f"{stem}_recall10", share)
        bench.note(f"{stem}_recall10_exact", most)
        bench.note(f"{stem}_p50_ms", filtered.p50_ms)
        bench.note(f"{stem}_p50_ratio", filtered.p50_ms / plain)
        bench.note(f"{stem}_first_ms", filtered.first_ms)
    bench.show(table)


def adds(bench: Bench) -> None:
    """Add 1,000 passages to a copy of the largest index; double another one by upserts of 1,000."""
    table = Table("", "passages", "upsert s", "first search ms", "found at once", "recall@10", "compared with")
    _add_some(bench, table)
    _double(bench, table)
    bench.show(table)


def _add_some(bench: Bench, table: Table) -> None:
    count = bench.sizes.largest
    before = recall(_default_answers(bench, count).found, bench.exact(count, K), K)
    copy = bench.work / "added"
    shutil.copytree(bench.index(count).path, copy)
    bench.tell(f"ours: adding {ADDED} passages to {count}")
    base = bench.base
    added = ours.alone(ours.add, copy, bench.corpus, base, base + ADDED, bench.dim, ADDED, ())
    answers = bench.search(copy, [_DEFAULT]).answers[0]
    columns = np.concatenate([np.arange(count), np.arange(base, base + ADDED)])
    wanted = [columns[row].tolist() for row in best(bench.scores[:, columns], K)]
    after = recall(answers.found, wanted, K)
    _row(bench, table, "add_1000", count + ADDED, added, after, f"{before:.3f} before")
    bench.note("add_1000_recall10_change", after - before)


def _double(bench: Bench, table: Table) -> None:
    count, half = bench.sizes.largest, bench.sizes.half
    fresh = recall(_default_answers(bench, count).found, bench.exact(count, K), K)
    copy = bench.work / "doubled"
    shutil.copytree(bench.index(half).path, copy)
    bench.tell(f"ours: doubling {half} passages by upserts of {_ADD_STEP}")
    added = ours.alone(ours.add, copy, bench.corpus, half, count, bench.dim, _ADD_STEP, bench.ranks)
    doubled = recall(bench.search(copy, [_DEFAULT]).answers[0].found, bench.exact(count, K), K)
    _row(bench, table, "double", count, added, doubled, f"{fresh:.3f} built afresh")
    bench.note("double_recall10_change", doubled - fresh)


def _row(bench: Bench, table: Table, name: str, passages: int, added: ours.Added, recall10: float, beside: str) -> None:
    if not added.found_at_once:
        bench.failures.append(f"{name}: the last passage added was not found by its own words")
    seconds, first = f"{added.seconds:.2f}", f"{added.first_search_ms:.1f}"
    table.add_row(name, str(passages), seconds, first, str(added.found_at_once), f"{recall10:.3f}", beside)
    bench.note(f"{name}_s", added.seconds)
    bench.note(f"{name}_first_search_ms", added.first_search_ms)
    bench.note(f"{name}_found_at_once", added.found_at_once)
    bench.note(f"{name}_recall10", recall10)
