"""``rerank-integrations explain``."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import write_stanford_colbert
from command_line import RECORDS, Cli

from rerank_integrations import ColBERTIndex, ColBERTModel

QUERY = "read a zip file"
TEXT = "A zip file is read 中国 without extracting it."


def test_a_text_is_explained_as_the_library_does(cli: Cli, colbert_dir: Path) -> None:
    expected = ColBERTModel(str(colbert_dir)).explain(QUERY, TEXT)
    done = cli("explain", QUERY, TEXT, "--model", colbert_dir, "--json")
    assert done.code == 0, done.err
    assert done.json() == expected.to_dict()
    shown = cli("explain", QUERY, TEXT, "--model", colbert_dir)
    assert shown.code == 0, shown.err
    assert "".join(shown.out.split()) == "".join(expected.to_text(200).split())


def test_a_file_is_explained_character_for_character(cli: Cli, colbert_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + f"\r\n{TEXT}\r\n".encode())
    done = cli("explain", QUERY, "--file", path, "--model", colbert_dir, "--json")
    assert done.code == 0, done.err
    record = done.json()
    assert record["text"] == f"\r\n{TEXT}\r\n"
    assert record == ColBERTModel(str(colbert_dir)).explain(QUERY, f"\r\n{TEXT}\r\n").to_dict()


def test_the_standard_input_is_explained(cli: Cli, colbert_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert cli("explain", QUERY, "--file", "-", "--model", colbert_dir, "--json").json()["text"] == TEXT


def test_a_passage_of_an_index_is_explained_by_its_model(cli: Cli, index_path: Path, cached_model: str) -> None:
    done = cli("explain", QUERY, "--index", index_path, "--id", "c", "--json")
    assert done.code == 0, done.err
    assert done.json() == ColBERTModel(cached_model).explain(QUERY, str(RECORDS[2]["text"])).to_dict()
    same = cli(
        "explain", QUERY, "--index", index_path, "--id", "c", "--trust-remote-code", "--model", cached_model, "--json"
    )
    assert same.json() == done.json() == cli(
        "explain", QUERY, "--index", index_path, "--id", "c", "--trust-remote-code", "--json"
    ).json()  # fmt: skip


def test_an_index_refuses_another_model_and_an_unknown_id(cli: Cli, index_path: Path, tmp_path: Path) -> None:
    done = cli("explain", QUERY, "--index", index_path, "--id", "no\x1b[31m")
    assert (done.code, done.out) == (1, "")
    assert "holds no passage with the id 'no\\x1b[31m'" in done.err
    other = write_stanford_colbert(tmp_path / "other")
    done = cli("explain", QUERY, "--index", index_path, "--id", "c", "--model", other)
    assert (done.code, done.out) == (1, "")
    with ColBERTIndex.open(index_path, read_only=True) as index:
        assert len(index) == 3


def test_a_heat_map_is_written(cli: Cli, colbert_dir: Path, tmp_path: Path) -> None:
    page = tmp_path / "map[bold].html"
    done = cli("explain", QUERY, TEXT, "--model", colbert_dir, "--html", page)
    assert done.code == 0, done.err
    assert f"The heat map is in {page}" in "".join(done.out.splitlines())
    expected = ColBERTModel(str(colbert_dir)).explain(QUERY, TEXT)
    assert page.read_text("utf-8") == expected.to_html()
    both = cli("explain", QUERY, TEXT, "--model", colbert_dir, "--html", page, "--json")
    assert both.json() == expected.to_dict()
    assert str(page) in both.err


def test_the_page_never_overwrites_what_it_explains(
    cli: Cli, colbert_dir: Path, index_path: Path, tmp_path: Path
) -> None:
    path, link = tmp_path / "text.txt", tmp_path / "link.html"
    path.write_text(TEXT, "utf-8")
    link.hardlink_to(path)
    for target in (path, tmp_path / "." / "text.txt", link):
        done = cli("explain", QUERY, "--file", path, "--model", colbert_dir, "--html", target)
        assert (done.code, done.out) == (1, "")
        assert "the file with the text" in done.err
    assert path.read_text("utf-8") == TEXT
    before = sorted(index_path.rglob("*"))
    for target in (index_path, index_path / "page.html"):
        done = cli("explain", QUERY, "--index", index_path, "--id", "c", "--html", target)
        assert (done.code, done.out) == (1, "")
        assert "within the index" in done.err
    assert sorted(index_path.rglob("*")) == before


def test_a_page_that_cannot_be_written_is_an_error(cli: Cli, colbert_dir: Path, tmp_path: Path) -> None:
    done = cli("explain", QUERY, TEXT, "--model", colbert_dir, "--html", tmp_path / "none" / "page.html")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("text", "--file", "FILE"),
        ("--index", "INDEX"),
        ("text", "--id", "a"),
        ("--index", "INDEX", "--id", "a", "--file", "FILE"),
        ("--file", "no-such-file"),
    ],
)
def test_wrong_usage(cli: Cli, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    named = [{"FILE": str(tmp_path / "file"), "INDEX": str(tmp_path)}.get(argument, argument) for argument in arguments]
    done = cli("explain", QUERY, *named)
    assert (done.code, done.out) == (2, "")


def test_bad_texts_are_errors(cli: Cli, colbert_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("naïve".encode("latin-1"))
    done = cli("explain", QUERY, "--file", path, "--model", colbert_dir)
    assert (done.code, done.out) == (1, "")
    assert f"{path}: not UTF-8" in "".join(done.err.splitlines())
    done = cli("explain", " ", TEXT, "--model", colbert_dir)
    assert done.code == 1
    assert done.err.startswith("error: query is")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_terminal_that_writes_only_ascii(colbert_dir: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    path = tmp_path / "text.txt"
    path.write_text(f"{TEXT}\x9b31m\x1b[31m", "utf-8")
    command = ["explain", QUERY, "--file", str(path), "--model", str(colbert_dir), *more]
    done = subprocess.run(
        [sys.executable, "-c", f"from rerank_integrations.cli import main; main({command!r})"],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode("ascii")
    assert "\x1b" not in shown
    assert ("\\u4e2d\\u56fd" if more else "MaxSim") in shown


def test_json_holds_no_raw_control_character(cli: Cli, colbert_dir: Path) -> None:
    text = "a zip\x1b[31m\x9b31m\x7f file"
    done = cli("explain", QUERY, text, "--model", colbert_dir, "--json")
    assert not set("\x1b\x9b\x7f") & set(done.out)
    assert done.json()["text"] == text
