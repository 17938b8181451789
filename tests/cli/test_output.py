"""Output of the commands: safe in every encoding, whatever names, texts, paths and errors contain."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_collection import QRELS, QUERIES, TEXTS

from rerank_integrations import ColBERTIndex, ColBERTModel, Passage, export_colbert
from rerank_integrations.cli import app, main
from rerank_integrations.cli.options import ModelKind
from rerank_integrations.cli.train import _TRAINERS
from rerank_integrations.demo.library import build_library, library_path
from rerank_integrations.evaluation import Pipeline, Retrieve, keep_result, load_dataset, measure_retriever
from rerank_integrations.evaluation.evaluating import identity
from rerank_integrations.evaluation.fidelity import Fidelity

# Markup, a link, a title, a cleared screen, a C1 control, a direction override, an emoji's code, and characters that
# cp1252 lacks.
HOSTILE = "a[bold]b[/] [link=x]\x1b]0;t\x07\x1b[2J\x9b31m\u202e:zip: \U0001f4e6\u4e2d\u00e9"
FILE_NAME = HOSTILE.replace("/", "")
ENCODINGS = ("cp1252", "ascii", "utf-8")
COMMANDS = [command.name or command.callback.__name__.replace("_", "-") for command in app.app.registered_commands]


@dataclass(frozen=True)
class HostileFolder:
    """Folder in which every name is hostile, and a model."""

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
        """Return a folder with the results of an evaluation of two pipelines."""
        folder, data = self.root / f"results {self.name}", load_dataset(self.collection())
        if not folder.exists():
            for name, keys in (("one", ["zip"]), ("two", ["os", "zip"])):
                ids = [f"{HOSTILE}{key}" for key in keys]
                measured = measure_retriever(f"{name} {HOSTILE}", lambda _, ids=ids: ids, data, callers=(1,))
                keep_result(folder / f"{name}.json", measured)
            (folder / "collection.json").write_text(json.dumps({"data": data.facts(), "qrels": data.qrels}), "utf-8")
        return folder


@pytest.fixture
def hostile(tmp_path: Path, colbert_dir: Path) -> HostileFolder:
    root, model = tmp_path / f"{FILE_NAME}{os.fsdecode(bytes([0xE9]))}", tmp_path / f"model {FILE_NAME}"
    try:
        root.mkdir()
        # The name has no lone surrogate, because the libraries that read a checkpoint take none.
        shutil.copytree(colbert_dir, model)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such names")
    return HostileFolder(root, model)


@dataclass(frozen=True)
class Written:
    """Exit code and decoded output of a call."""

    code: int
    out: str
    err: str

    def control_characters(self) -> list[str]:
        """Return the characters that are neither printable nor line feeds."""
        return [character for character in self.out + self.err if character != "\n" and not character.isprintable()]


Call = Callable[..., Written]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """Function that calls the command line with strict standard streams of an encoding."""
    monkeypatch.setenv("COLUMNS", "100")
    root, handlers, formatter = logging.getLogger(), logging.getLogger().handlers[:], warnings.formatwarning
    factory = logging.getLogRecordFactory()

    def run(encoding: str, *arguments: object) -> Written:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as exit_info:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            main([str(argument) for argument in arguments])
        for stream in streams:
            stream.flush()
        out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
        return Written(int(exit_info.value.code or 0), out, err)

    yield run
    logging.captureWarnings(False)
    logging.setLogRecordFactory(factory)
    logging.getLogger("rerank_integrations").setLevel(logging.NOTSET)
    root.handlers[:], warnings.formatwarning = handlers, formatter


def index_files(hostile: HostileFolder, encoding: str) -> list[object]:
    folder = hostile.root / "notes"
    if not folder.exists():
        folder.mkdir()
        (folder / f"{hostile.name}.txt").write_text(f"A zip. {HOSTILE}", "utf-8")
        (folder / "records.jsonl").write_text(json.dumps({"_id": HOSTILE, "text": HOSTILE, HOSTILE: HOSTILE}), "utf-8")
        (folder / f"left out.{hostile.name}").write_text("x", "utf-8")
    return [hostile.root / f"made {encoding}", folder, "--model", hostile.colbert]


def rerank_file(hostile: HostileFolder, _: str) -> list[object]:
    file = hostile.root / "passages.jsonl"
    file.write_text(json.dumps({"_id": HOSTILE, "text": f"a zip {HOSTILE}"}), "utf-8")
    return [f"zip {hostile.name}", file, "--model", hostile.colbert]


def evaluate_again(hostile: HostileFolder, _: str) -> list[object]:
    """Return the arguments of an evaluation whose only pipeline has a result already."""
    results, data = hostile.results(), load_dataset(hostile.collection())
    pipelines = hostile.root / "pipelines.yaml"
    pipelines.write_text(json.dumps([{"name": f"one {HOSTILE}", "retrieve": {"kind": "bm25"}}]), "utf-8")
    record = json.loads((results / "one.json").read_text("utf-8"))
    record["settings"] = identity(Pipeline(f"one {HOSTILE}", Retrieve("bm25")), data, (1,))
    (results / re.sub(r"[^\w.+-]+", "-", f"one {HOSTILE}.json")).write_text(json.dumps(record), "utf-8")
    return [hostile.collection(), "--pipelines", pipelines, "--out", results, "--callers", "1"]


def import_exported(hostile: HostileFolder, encoding: str) -> list[object]:
    exported = hostile.root / f"for import {encoding}"
    with ColBERTIndex.open(hostile.index(), read_only=True) as index:
        export_colbert(index, exported)
    return [exported, hostile.root / f"imported {encoding}", "--model", hostile.colbert]


def train_pairs(hostile: HostileFolder, encoding: str) -> list[object]:
    pairs = hostile.root / "pairs.jsonl"
    lines = [{"query": f"read {word}", "positive": f"It reads {word}. {HOSTILE}"} for word in ("zip", "csv", "tar")]
    pairs.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return [
        "colbert",
        pairs,
        "--out",
        hostile.root / f"trained {encoding}",
        "--base",
        hostile.colbert,
        "--negatives",
        "1",
    ]


def demo_of_few(hostile: HostileFolder, _: str) -> list[object]:
    model = ColBERTModel(hostile.colbert)
    if not library_path(model).exists():
        build_library(model, [Passage(HOSTILE, f"zip {HOSTILE}", {"module": HOSTILE})], iter).close()
    return [f"zip {hostile.name}"]


Arguments = Callable[[HostileFolder, str], list[object]]
# Arguments of each command, in which every name is hostile, and the modules that the command needs.
CALLS: dict[str, tuple[Arguments, tuple[str, ...]]] = {
    "demo": (demo_of_few, ()),
    "index": (index_files, ()),
    "search": (lambda hostile, _: [hostile.index(), f"zip {hostile.name}", "--model", hostile.colbert], ()),
    "rerank": (rerank_file, ()),
    "explain": (lambda hostile, _: [f"zip {hostile.name}", f"a zip {hostile.name}", "--model", hostile.colbert], ()),
    "info": (lambda hostile, _: [hostile.index()], ()),
    "verify": (lambda hostile, _: [hostile.index()], ()),
    "evaluate": (evaluate_again, ("bm25s", "jinja2", "matplotlib")),
    "report": (lambda hostile, _: [hostile.results()], ("bm25s", "jinja2", "matplotlib")),
    "compare": (
        lambda hostile, _: [
            hostile.results() / "one.json",
            hostile.results() / "two.json",
            "--colbert",
            hostile.colbert,
        ],
        (),
    ),
    "tune": (
        lambda hostile, _: [hostile.collection(), "--colbert", hostile.colbert, "--budget-ms", "60000"],
        ("bm25s", "jinja2", "matplotlib"),
    ),
    "train": (train_pairs, ("accelerate", "datasets")),
    "optimize": (lambda hostile, _: [hostile.colbert, "--kind", "colbert", "--dtype", "float32"], ("openvino",)),
    "mcp": (
        lambda hostile, _: [f"hostile={hostile.index()}", "--model", hostile.colbert, "--http", "--read-only"],
        ("mcp", "fastapi", "uvicorn"),
    ),
    "serve": (lambda hostile, _: [f"hostile={hostile.index()}", "--model", hostile.colbert], ("fastapi", "uvicorn")),
    "import-colbert": (import_exported, ()),
    "export-colbert": (lambda hostile, encoding: [hostile.index(), hostile.root / f"exported {encoding}"], ()),
}


@pytest.fixture
def little_work(hostile: HostileFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace long work by nothing, because these tests are about the output."""
    monkeypatch.setenv("RERANK_INTEGRATIONS_CACHE", str(hostile.root / "cache"))
    monkeypatch.setattr("rerank_integrations.cli.demo.ColBERTModel", lambda _: ColBERTModel(hostile.colbert))
    monkeypatch.setattr(
        "rerank_integrations.evaluation.fidelity.measure_fidelity",
        lambda _: Fidelity(hostile.root, 1, 0.0, 1.0, 1.0),
    )
    monkeypatch.setattr("rerank_integrations.server.serve", lambda *_: None)
    for kind in ModelKind:
        monkeypatch.setitem(_TRAINERS, kind, lambda *_, **__: None)


def test_every_command_has_a_call_with_hostile_names() -> None:
    assert set(CALLS) == set(COMMANDS)


@pytest.mark.usefixtures("little_work")
@pytest.mark.parametrize(
    "encoding", ["cp1252", *(pytest.param(name, marks=pytest.mark.slow) for name in ENCODINGS[1:])]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_writes_in_every_encoding_without_control_characters(
    call: Call, hostile: HostileFolder, command: str, encoding: str
) -> None:
    make_arguments, needed = CALLS[command]
    for module in needed:
        pytest.importorskip(module)
    done = call(encoding, command, *make_arguments(hostile, encoding))
    assert done.code == 0, done.err
    assert done.control_characters() == []
    assert "Traceback" not in done.err
    # Markup and emojis' codes are ordinary text.
    shown = "".join((done.out + done.err).split()).replace("|", "").replace("│", "")
    assert "[bold]" in shown
    assert ":zip:" in shown


@pytest.mark.parametrize("command", ["info", "search", "index"])
def test_json_is_ascii_whatever_it_contains(call: Call, hostile: HostileFolder, command: str) -> None:
    done = call("ascii", command, *CALLS[command][0](hostile, "ascii"), "--json")
    assert done.code == 0, done.err
    assert done.control_characters() == []
    document = json.loads(done.out)
    assert hostile.name in document["index"]
    if command == "search":
        assert document["hits"][0]["id"] == HOSTILE


@pytest.mark.parametrize("command", ["search", "explain", "compare", "info"])
def test_the_only_control_characters_on_a_terminal_are_styles(
    call: Call, hostile: HostileFolder, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}.items():
        monkeypatch.setenv(name, value)
    done = call("utf-8", command, *CALLS[command][0](hostile, "utf-8"))
    assert done.code == 0, done.err
    assert "\x1b[" in done.out
    assert Written(0, re.sub("\x1b\\[[0-9;]*m", "", done.out), done.err).control_characters() == []


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", COMMANDS)
def test_help_in_every_encoding(call: Call, command: str, encoding: str) -> None:
    done = call(encoding, command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"rerank-integrations {command}" in done.out


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([HOSTILE], 2),
        (["info", f"--{HOSTILE}"], 2),
        (["info", FILE_NAME], 1),
        (["index", "made", FILE_NAME], 2),
        (["rerank", "q", FILE_NAME], 2),
        (["rerank", "q", __file__, "--model", FILE_NAME], 1),
        (["search", "made", "q", "--where", HOSTILE], 1),
        (["evaluate", FILE_NAME, "--pipelines", HOSTILE], 1),
        (["compare", FILE_NAME, FILE_NAME], 1),
    ],
)
def test_errors_have_no_control_characters(call: Call, encoding: str, arguments: list[str], code: int) -> None:
    done = call(encoding, *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.control_characters() == []
    assert "error: " in done.err
    assert "[bold]" in done.err or "--a[bold" in done.err


def test_warnings_and_log_records_have_no_control_characters(
    call: Call, hostile: HostileFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = ColBERTIndex.open

    def open_with_noise(path: Path, **options: Any) -> ColBERTIndex:
        warnings.warn(f"warned of {path}", UserWarning, stacklevel=2)
        logging.getLogger("rerank_integrations.core").warning("logged of %s", path)
        library = logging.Logger("a library")
        library.addHandler(logging.StreamHandler(sys.stderr))
        library.warning("said of %s", path)
        return opened(path, **options)

    index = hostile.index()
    monkeypatch.setattr(ColBERTIndex, "open", open_with_noise)
    done = call("ascii", "info", index)
    assert "WARNING: warned of" in done.err
    assert "WARNING: logged of" in done.err
    assert "said of" in done.err
    assert done.err.count("[bold]") >= 3
    assert done.control_characters() == []


def test_a_traceback_has_no_control_characters(hostile: HostileFolder) -> None:
    code = "from rerank_integrations.cli import main; main()"
    arguments = ["--debug", "info", str(hostile.root / "nothing")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False)
    assert done.returncode == 1
    message = done.stderr.decode(errors="strict")
    assert "Traceback" in message
    assert "is not an index" in message
    assert [character for character in message if character != "\n" and not character.isprintable()] == []


def test_a_process_with_another_encoding_needs_nothing_else(hostile: HostileFolder) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from rerank_integrations.cli import main; main()", "info", str(hostile.index())],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252:strict"},
    )
    assert b"[bold]" in done.stdout
    assert b"\x1b" not in done.stdout


def test_only_one_module_writes() -> None:
    for file in Path(app.__file__).parent.glob("*.py"):
        if file.name == "output.py":
            continue
        source = file.read_text("utf-8")
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        assert not names & {"print", "Console"}, file
        for written in ("typer.echo", "typer.secho", "sys.stdout.", "sys.stderr.", "rich.print", "markup"):
            assert written not in source.replace("rich_markup_mode", ""), (file, written)
