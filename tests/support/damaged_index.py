"""An index to damage, and the answers that it must give in spite of the damage."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, Passage
from rerank_integrations.core.index.storage.catalog import tables_crc

PASSAGES = [Passage(f"p{number}", f"text number {number}", {"n": number}) for number in range(20)]


def answers(index: ColBERTIndex) -> list[Any]:
    return [index.search_many(["number 3", "text"], 30), index.search("text", where={"n": {"$gt": 12}}), len(index)]


def make_two_segments(path: Path) -> Path:
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(PASSAGES[:15])
        index.upsert(PASSAGES[15:])
    return path


def check_unharmed(index: ColBERTIndex, before: list[Any]) -> None:
    """Assert that the index is sound and answers as before, now and when it is opened again."""
    assert answers(index) == before
    assert index.verify().passages == len(PASSAGES)
    index.close()
    with ColBERTIndex.open(index.path, ToyEncoder()) as again:
        assert answers(again) == before


def change_catalog(path: Path, statement: str, *values: object) -> None:
    """Change the catalog by SQL and update its checksums, as a writer would."""
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
        connection.execute(statement, values)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'tables_crc'", (str(tables_crc(connection)),))
        connection.commit()
