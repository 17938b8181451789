"""Sum the test reports of all runs into one closing line; fail if one of them failed."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main() -> int:
    """Print one line per run, then the sum; return 1 if a test failed or none ran."""
    total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for report in sorted(Path(sys.argv[1]).glob("*.xml"), key=lambda path: path.stat().st_mtime):
        suite = next(ElementTree.parse(report).iter("testsuite")).attrib
        counts = {name: int(suite[name]) for name in total}
        total = {name: total[name] + counts[name] for name in total}
        sys.stdout.write(f"{report.stem}: {_line(counts)}\n")
    sys.stdout.write(f"{_line(total)}\n")
    return 1 if total["failures"] + total["errors"] or not total["tests"] else 0


def _line(counts: dict[str, int]) -> str:
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    return f"{passed} passed, {failed} failed, {counts['skipped']} skipped"


if __name__ == "__main__":
    sys.exit(main())
