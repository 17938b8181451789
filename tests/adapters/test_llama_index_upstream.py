"""The runner of LlamaIndex's own tests, on a miniature of its repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from upstream_llama_index import Suite, rows_of, run_suite, summary

THEIRS = """
import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery


def test_finds_the_nearest():
    store = SimpleVectorStore()
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    store.add([TextNode(id_=name, text="same", embedding=vector) for name, vector in vectors.items()])
    found = store.query(VectorStoreQuery(query_embedding=[0.1, 0.9], similarity_top_k=1))
    assert type(store).__mro__[1].__name__ == "ColBERTVectorStore"
    assert found.ids == ["b"]


def test_fails():
    assert SimpleVectorStore() is None


@pytest.mark.skip(reason="no server")
def test_of_a_server():
    pass


class TestStore:
    def test_get_nodes(self):
        SimpleVectorStore.from_persist_dir()

    @pytest.mark.parametrize("where", ["memory"])
    def test_filter_operator_ne(self, where):
        raise AssertionError("a|b")
"""


@pytest.mark.slow
def test_a_suite_runs_with_our_classes_and_every_outcome_is_listed(tmp_path: Path) -> None:
    (tmp_path / "test_duckdb.py").write_text(THEIRS, "utf-8")
    rows = rows_of(run_suite(tmp_path, Suite("theirs by ours", ("test_duckdb.py",))))
    results = {row.test.rpartition("::")[2]: row.result for row in rows}
    assert results == {
        "test_finds_the_nearest": "passes",
        "test_fails": "fails",
        "test_of_a_server": "does not apply",
        # Fails, and is not among the tests that are known not to apply.
        "test_get_nodes": "fails",
        "test_filter_operator_ne[memory]": "does not apply",
    }
    assert all(row.reason for row in rows if row.result != "passes")
    assert "| theirs by ours | 1 | 2 | 2 |" in summary({"theirs by ours": rows})


@pytest.mark.slow
def test_a_file_that_cannot_be_imported_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name\n", "utf-8")
    (row,) = rows_of(run_suite(tmp_path, Suite("theirs by ours", ("test_broken.py",))))
    assert (row.test, row.result) == ("test_broken.py::", "fails")
    assert "nothing_of_this_name" in row.reason
