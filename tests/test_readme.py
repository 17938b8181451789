"""Every Python block of the README runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
EXPECTED = ["zip zipfile reads and writes ZIP archives.", "zipfile reads and writes ZIP archives.", "ZIP archives"]


@pytest.mark.slow
def test_each_block_runs_twice_and_finds_the_archive_first(tmp_path: Path) -> None:
    # One after another in one process, since most of the time goes into importing; again, as a notebook's cell may be.
    run = "print('block')\nexec(block, names)\n"
    code = "\n".join(f"names, block = {{'__name__': '__main__'}}, {block!r}\n{run}{run}" for block in BLOCKS)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    printed = result.stdout.split("block\n")[1:]
    for lines, expected in zip(printed, [found for found in EXPECTED for _ in range(2)], strict=True):
        assert expected in lines.splitlines()[0]


def test_readme_opens_with_the_two_commands() -> None:
    first_block = README.read_text(encoding="utf-8").split("```")[1]
    assert [line.split("#")[0].strip() for line in first_block.splitlines()[1:3]] == ["make demo", "make test"]
