"""Folder of a test collection that is small enough to judge by eye."""

from __future__ import annotations

import json
from pathlib import Path

TEXTS = {
    "zip": "zipfile reads and writes ZIP archives.",
    "csv": "csv reads and writes tables of comma-separated values.",
    "os": "os walks a tree of folders and files.",
    "json": "json turns objects into text and back.",
    "copy": "shutil copies folders and files.",
}
QUERIES = {"q1": "open an archive", "q2": "walk through folders", "q3": "tables with commas", "q4": "copy files"}
QRELS = {"q1": {"zip": 1, "json": 0}, "q2": {"os": 2, "copy": 1}, "q3": {"csv": 1}, "q4": {"copy": 1}}


def write_collection(folder: Path, split: str = "test") -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", TEXTS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    judged = [f"{query}\t{key}\t{grade}\n" for query, grades in QRELS.items() for key, grade in grades.items()]
    (folder / "qrels" / f"{split}.tsv").write_text("".join(judged))
    return folder
