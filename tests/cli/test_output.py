"""What the commands write: safe in every encoding, whatever names, texts, paths and errors hold."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_collection import QRELS, QUERIES, TEXTS

from rerank_integrations import ColBERTIndex, ColBERTModel, Passage
from rerank_integrations.cli import app
from rerank_integrations.evaluation import keep_result, load_dataset, measure_retriever

# Markup, a link, a title, a cleared screen, a C1 control, a direction override, an emoji's code, what cp1252 lacks.
HOSTILE = "a[bold]b[/] [link=x]\x1b]0;t\x07\x1b[2J\x9b31m\u202e:zip: \U0001f4e6\u4e2d\u00e9"
FILE_NAME = HOSTILE.replace("/", "")
ENCODINGS = ("cp1252", "ascii", "utf-8")
COMMANDS = [command.name or command.callback.__name__.replace("_", "-") for command in app.app.registered_commands]


@dataclass(frozen=True)
class World:
    """A folder of which every name is hostile, and the models to use there."""

    root: Path
    colbert: Path

    @property
    def name(self) -> str:
        return self.root.name

    def index(self) -> Path:
        path = self.root / f"index {self.name}"
        if not path.exists():
            with ColBERTIndex.create(path, ColBERTModel(self.colbert)) as index:
                index.upsert([Passage(HOSTILE, f"a zip {HOSTILE}", {HOSTILE: HOSTILE}), Passage("plain", "a river")])
        return path

    def collection(self) -> Path:
        folder = self.root / f"data {FILE_NAME}"
        if not folder.exists():
            (folder / "qrels").mkdir(parents=True)
            for kind, texts in (("corpus", TEXTS), ("queries", QUERIES)):
                lines = [
                    json.dumps({"_id": f"{HOSTILE}{key}", "text": f"{text} {HOSTILE}"}) for key, text in texts.items()
                ]
                (folder / f"{kind}.jsonl").write_text("\n".join(lines), "utf-8")
            judged = [
                f"{HOSTILE}{query}\t{HOSTILE}{key}\t{grade}\n"
                for query, grades in QRELS.items()
                for key, grade in grades.items()
            ]
            (folder / "qrels" / "test.tsv").write_text("".join(judged), "utf-8")
        return folder

    def results(self) -> Path:
        """Results as an evaluation keeps them, of two pipelines."""
        folder, data = self.root / f"results {self.name}", load_dataset(self.collection())
        if not folder.exists():
            for name, ids in (("one", ["zip"]), ("two", ["os", "zip"])):
                found = [f"{HOSTILE}{key}" for key in ids]
                measured = measure_retriever(f"{name} {HOSTILE}", lambda _, found=found: found, data, callers=(1,))
                keep_result(folder / f"{name}.json", measured)
            (folder / "collection.json").write_text(json.dumps({"data": data.facts(), "qrels": data.qrels}), "utf-8")
        return folder


@pytest.fixture
def world(tmp_path: Path, colbert_dir: Path) -> World:
    root, model = tmp_path / f"{FILE_NAME}{os.fsdecode(bytes([0xE9]))}", tmp_path / f"model {FILE_NAME}"
    try:
        root.mkdir()
        # Without a lone surrogate: the libraries that read a checkpoint take none.
        shutil.copytree(colbert_dir, model)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such names")
    return World(root, model)
