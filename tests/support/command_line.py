"""Call the command line and capture its result; a small corpus as its input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """Result of a call: its exit code and its output."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Done]


RECORDS = [
    {"_id": "a", "title": "Net profit", "text": "The net profit grew in 2024.", "year": 2024},
    {"_id": "b", "title": "", "text": "The river rose after the rain.", "metadata": {"year": 2023}},
    {"_id": "c", "text": "A zip file is read without extracting it.", "year": 2022},
]
