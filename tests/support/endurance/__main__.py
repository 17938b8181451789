"""Attack indexes at length: kill writers, damage files, open beside a fast writer, fork and close under load.

    PYTHONPATH=tests/support python -m endurance [kills damages opens forks closes] [--quick] [--seed N]

Each attack counts what must never happen; the last line gives all counts as name=value pairs, and the exit code is 1 if
one of those is not 0. Needs Linux or macOS. `--quick` takes a small share of each attack, in about a minute and a half.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable

from endurance import closes, damages, forks, kills, opens

Counts = dict[str, int]
# Number of attacks of a full run, and with --quick.
ATTACKS: dict[str, tuple[Callable[[int, int], Counts], int, int]] = {
    "kills": (kills.run, 500, 25),
    "damages": (damages.run, 10_000, 300),
    "opens": (opens.run, 10_000, 300),
    "forks": (forks.run, 1_000, 40),
    "closes": (closes.run, 500, 20),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a small share of each attack")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.attacks) - set(ATTACKS):
        parser.error(f"unknown attacks: {', '.join(sorted(unknown))}")
    print(f"{platform.platform()}, {platform.processor() or platform.machine()}, Python {platform.python_version()}")
    counts: Counts = {}
    for name in options.attacks or ATTACKS:
        attack, full, quick = ATTACKS[name]
        start = time.monotonic()
        result = attack(quick if options.quick else full, options.seed)
        print(f"{name} ({time.monotonic() - start:.0f} s): {result}", flush=True)
        counts |= {f"{name}_{key}": value for key, value in result.items()}
    print(" ".join(f"{key}={value}" for key, value in counts.items()))
    return int(any(value for key, value in counts.items() if key.endswith(NEVER)))


# Counts whose names end so must be 0.
NEVER = ("_lost", "_wrong", "_crashed", "_hung", "_failed", "_foreign", "_unseen", "_left", "_false_alarms", "_harmed")

if __name__ == "__main__":
    sys.exit(main())
