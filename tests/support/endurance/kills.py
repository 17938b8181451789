"""Kill writers by SIGKILL, at random moments and at lines spread over every kind of write."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import tempfile

from killed_writers import change
from toy import child_env

# How many changes are made in a row, in each of which a writer is killed.
CHANGES = 14

# Each call of `killed_writers` checks every state that it finds, and prints how many kills it made.
# The share is of all kills.
KINDS = {
    "changes": ("changes_at_lines(path, points={count}, seed={seed}, changes={changes})", 0.24),
    "changes_compressed": (
        "changes_at_lines(path, points={count}, seed={seed}, changes={changes}, compressed=True)",
        0.24,
    ),
    "first_compression": ("growth_at_lines(path, points={count})", 0.16),
    "create_and_overwrite": ("overwrites_at_lines(path, points={count})", 0.16),
    "moments": ("kill_at_moments(path, times={count}, seed={seed})", 0.1),
    "moments_compressed": ("kill_at_moments(path, times={count}, seed={seed}, compressed=True)", 0.1),
}


def run(count: int, seed: int) -> dict[str, int]:
    """Kill at least `count` writers; a kind of write that left a wrong state counts as lost."""
    counts = {"all": 0, "lost": 0}
    seed = _first_seed_of_all_kinds(seed)
    for kind, (call, share) in KINDS.items():
        kills = _kill(call.format(count=max(1, math.ceil(count * share)), seed=seed, changes=CHANGES))
        counts[kind] = kills or 0
        counts["all"] += kills or 0
        counts["lost"] += kills is None
    return counts


def _first_seed_of_all_kinds(seed: int) -> int:
    """Return the first seed, from `seed` on, whose changes include all kinds."""
    kinds = {"upsert", "long upsert", "delete", "compact"}
    return next(s for s in itertools.count(seed) if {change(s, number)[0] for number in range(CHANGES)} == kinds)


def _kill(call: str) -> int | None:
    """Run one kind in a process without threads (it forks); return its number of kills, or ``None`` if it failed."""
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        code = f"from pathlib import Path; import killed_writers; path = Path({folder!r}); killed_writers.{call}"
        environment = {**child_env(), "OMP_NUM_THREADS": "1"}
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    if ran.returncode:
        print(f"{call}:\n{ran.stderr}", file=sys.stderr)
        return None
    return int(ran.stdout.split()[-1])
