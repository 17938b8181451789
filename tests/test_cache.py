"""Folders that are made once: by one process, whole or not at all, and again when they are damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rerank_integrations.cache import find_folder, find_or_make_folder

MAKER = """
import os, sys, time
from pathlib import Path
from rerank_integrations.cache import find_or_make_folder
root, mode = Path(sys.argv[1]), sys.argv[2]
def make(folder):
    with (root / "made").open("a") as log:
        log.write("x")
    (folder / "first").write_text("one")
    if mode == "killed":
        os._exit(9)
    time.sleep(0.5)
    (folder / "second").write_text("two")
find_or_make_folder(root / "cache" / "thing", make)
"""


def run_maker(root: Path, mode: str = "whole") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MAKER, root, mode])


def make(folder: Path) -> None:
    (folder / "first").write_text("one")
    (folder / "second").write_text("two")


def test_processes_at_once_make_one_folder(tmp_path: Path) -> None:
    makers = [run_maker(tmp_path) for _ in range(3)]
    assert [maker.wait() for maker in makers] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "x"
    assert find_folder(tmp_path / "cache" / "thing") == tmp_path / "cache" / "thing"


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_the_folder(tmp_path: Path) -> None:
    assert run_maker(tmp_path, "killed").wait() == 9
    folder = tmp_path / "cache" / "thing"
    assert find_folder(folder) is None
    assert not folder.exists()
    assert find_or_make_folder(folder, make) == folder
    assert sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) == ["thing"]


@pytest.mark.parametrize("damage", ["cut", "changed", "lost", "manifest"])
def test_a_damaged_folder_is_made_again(tmp_path: Path, damage: str) -> None:
    folder = find_or_make_folder(tmp_path / "thing", make)
    target = folder / ("files.json" if damage == "manifest" else "second")
    if damage == "lost":
        target.unlink()
    else:
        target.write_text({"cut": "t", "changed": "2wo", "manifest": "{"}[damage])
    assert find_folder(folder) is None
    find_or_make_folder(folder, make)
    assert (folder / "second").read_text() == "two"
    assert find_folder(folder) == folder


def test_a_sound_folder_is_not_made_again(tmp_path: Path) -> None:
    find_or_make_folder(tmp_path / "thing", make)

    def refuse(folder: Path) -> None:
        raise AssertionError(folder)

    assert find_or_make_folder(tmp_path / "thing", refuse) == tmp_path / "thing"


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "first").write_text("one")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        find_or_make_folder(tmp_path / "thing", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
