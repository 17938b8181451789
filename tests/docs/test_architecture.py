"""The page about the architecture names every module, and none that is gone."""

from __future__ import annotations

import re

from module_table import PAGE, SOURCE, folders, modules


def test_every_module_is_named_in_its_folder() -> None:
    named: dict[str, list[str]] = {}
    for section in re.split(r"^### ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0].strip("`/")
        named["." if title == "The root" else title] = re.findall(r"^\| `(\w+\.py)` \|", section, re.MULTILINE)
    expected = {folder.relative_to(SOURCE).as_posix(): [path.name for path in modules(folder)] for folder in folders()}
    assert named == expected, "run: PYTHONPATH=tests/support .venv/bin/python -m module_table"


def test_every_folder_of_the_package_is_in_the_order() -> None:
    with_modules = {path.parent for path in SOURCE.rglob("*.py") if path.name != "__init__.py"}
    assert set(folders()) == with_modules
