"""``rerank-integrations import-colbert`` and ``export-colbert``."""

from __future__ import annotations

from pathlib import Path

import pytest
from colbert_ai_folders import write_folder
from command_line import Cli

from rerank_integrations import ColBERTIndex


@pytest.fixture
def exported(cli: Cli, index_path: Path, tmp_path: Path) -> Path:
    """Export of `index_path` for colbert-ai."""
    done = cli("export-colbert", index_path, tmp_path / "exported")
    assert done.code == 0, done.err
    assert f"{tmp_path / 'exported'}: 3 passages exported from {index_path}" in done.out
    return tmp_path / "exported"


def test_an_exported_index_is_imported_again(
    cli: Cli, index_path: Path, exported: Path, tmp_path: Path, cached_model: str
) -> None:
    back = tmp_path / "back"
    done = cli("import-colbert", exported, back, "--model", cached_model)
    assert done.code == 0, done.err
    assert f"{back}: 3 passages of " in done.out
    assert f" tokens imported from {exported}" in done.out
    with ColBERTIndex.open(index_path, read_only=True) as first, ColBERTIndex.open(back, read_only=True) as second:
        assert second.get(list("abc")) == first.get(list("abc"))
    before, after = (cli("search", path, "net profit", "--json").json()["hits"] for path in (index_path, back))
    assert [hit["id"] for hit in after] == [hit["id"] for hit in before]


def test_json_and_a_collection(cli: Cli, exported: Path, tmp_path: Path, colbert_dir: Path) -> None:
    texts = tmp_path / "texts.tsv"
    texts.write_text("0\tzero\n1\tone\n2\ttwo\n", "utf-8")
    back, again = tmp_path / "back", tmp_path / "again"
    done = cli("import-colbert", exported, back, "--model", colbert_dir, "--collection", texts, "--json")
    assert done.code == 0, done.err
    document = done.json()
    assert document.pop("tokens") > 3
    assert document == {"index": str(back), "source": str(exported), "passages": 3}
    with ColBERTIndex.open(back, read_only=True) as index:
        assert {passage.text for passage in index.get(list("abc"))} == {"zero", "one", "two"}
    done = cli("export-colbert", back, again, "--json")
    assert done.json() == {"index": str(back), "target": str(again), "passages": 3}


def test_an_index_is_replaced_only_with_overwrite(
    cli: Cli, index_path: Path, exported: Path, colbert_dir: Path
) -> None:
    done = cli("import-colbert", exported, index_path, "--model", colbert_dir)
    assert done.code == 1
    assert done.err.startswith(f"error: {index_path} holds an index")
    assert cli("info", index_path, "--json").json()["kind"] == "exact"
    assert cli("import-colbert", exported, index_path, "--model", colbert_dir, "--overwrite").code == 0
    assert cli("info", index_path, "--json").json()["kind"] == "plaid"
    done = cli("export-colbert", index_path, exported)
    assert done.code == 1
    assert done.err.startswith(f"error: {exported} exists; expected nothing there")


def test_a_folder_without_an_index_of_colbert_ai_is_an_error(
    cli: Cli, index_path: Path, tmp_path: Path, colbert_dir: Path
) -> None:
    done = cli("import-colbert", index_path, tmp_path / "new", "--model", colbert_dir)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: {index_path} is not a colbert-ai index")
    assert cli("import-colbert", tmp_path / "absent", tmp_path / "new", "--model", colbert_dir).code == 2
    assert "--model" in cli("import-colbert", index_path, tmp_path / "new").err
    assert cli("export-colbert", tmp_path / "absent", tmp_path / "new").code == 1
    assert not (tmp_path / "new").exists()


def test_another_model_is_refused(cli: Cli, tmp_path: Path, colbert_dir: Path) -> None:
    source = write_folder(tmp_path / "theirs")
    done = cli("import-colbert", source, tmp_path / "new", "--model", colbert_dir)
    assert done.code == 1
    assert "holds vectors of 32 dimensions" in done.err.replace("\n", " ")
    assert not (tmp_path / "new").exists()
