"""Runs the Python of a guide, block after block, as a reader would."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
CROSS_ENCODER = "cross-encoder/ms-marco-MiniLM-L6-v2"


def run_guide(name: str, folder: Path, cross_encoder: Path) -> dict[str, Any]:
    """Return the names that the blocks define, and the ``folder``.

    Runs in `folder`, where a tiny cross-encoder lies under the name of the one that the guide takes from the hub.
    """
    shutil.copytree(cross_encoder, folder / CROSS_ENCODER)
    text = (DOCS / name).read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "guide", "folder": folder}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text[: block.start(1)].count("\n")
            exec(compile("\n" * line + block[1], name, "exec"), names)
    finally:
        os.chdir(before)
    return names
