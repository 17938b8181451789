"""Square brackets, which the console reads as markup, are written as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Cli
from small_collection import QUERIES, write_collection

from rerank_integrations.evaluation import keep_result, load_dataset, measure_retriever


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("rerank", "[default: a usual one of its kind]"),
        ("rerank", "[default: all]"),
        ("explain", "[default: the index's own, or colbertv2.0]"),
        ("index", "[default: the index's own, or colbertv2.0]"),
        ("import-colbert", "[default: collection.json or .tsv in SOURCE]"),
    ],
)
def test_defaults_in_help(cli: Cli, command: str, default: str) -> None:
    assert default in " ".join(cli(command, "--help").out.replace("│", " ").split())


def test_the_name_of_a_collection(cli: Cli, tmp_path: Path) -> None:
    data, files = load_dataset(write_collection(tmp_path / "nq[dev]")), [tmp_path / "a.json", tmp_path / "b.json"]
    by_text = {text: ["zip"] for text in QUERIES.values()}
    for file in files:
        keep_result(file, measure_retriever(file.stem, by_text.__getitem__, data, callers=(1,)))
    done = cli("compare", *files, "--colbert", "none")
    assert done.code == 0, done.err
    assert "nq[dev]: nDCG@10" in done.out


def test_the_path_of_an_index(cli: Cli, corpus: Path, colbert_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "made[" / "dev]"
    path.parent.mkdir()
    done = cli("index", path, corpus, "--model", colbert_dir)
    assert done.code == 0, done.err
    assert "made[/dev]: 3 passages read" in "".join(done.out.splitlines())
    done = cli("export-colbert", path, tmp_path / "for[bold]")
    assert done.code == 0, done.err
    assert "for[bold]: 3 passages exported from" in "".join(done.out.splitlines())
