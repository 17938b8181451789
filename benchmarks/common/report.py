"""Reports of benchmarks: progress and tables on stderr, figures in the last line of stdout."""

from __future__ import annotations

import re
import sys

from rich.console import Console
from rich.table import Table


class Report:
    """Base of the object that the parts of a benchmark share.

    Parameters
    ----------
    figures
        Value by name, in the order in which they are added.
    failures
        Wrong answers and the like, not figures that are worse than expected.
    """

    figures: dict[str, str]
    failures: list[str]

    def note(self, name: str, value: float | bool) -> None:
        """Add a figure to the last line."""
        text = str(value) if isinstance(value, bool | int) else f"{value:.4g}"
        self.figures[re.sub(r"\W+", "_", name)] = text

    def tell(self, text: str) -> None:
        print(f".. {text}", file=sys.stderr, flush=True)

    def show(self, table: Table) -> None:
        Console(stderr=True, width=170).print(table)

    def finish(self) -> None:
        """Print the last line; exit with an error if something was found wrong."""
        print(" ".join(f"{name}={value}" for name, value in self.figures.items()))
        if self.failures:
            raise SystemExit("; ".join(self.failures))
