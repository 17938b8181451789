"""LlamaIndex's own tests, run unmodified from a checkout of its repository with this package's classes.

    python tests/support/upstream_llama_index.py PATH

PATH is a checkout of https://github.com/run-llama/llama_index; nothing of it is in this repository. As a plugin of
pytest this module replaces classes of LlamaIndex by name before a test file is imported. Their tests give every node a
vector of its own; the encoder here returns it as the only token vector of a text, so that MaxSim is their cosine
similarity.

The output is a table in Markdown per suite, one row per test, then the counts and the reasons of all suites. A test
that does not apply has its reason in `DOES_NOT_APPLY`. Any other test that fails makes the command fail.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

_RESULTS = "UPSTREAM_RESULTS"
# Longer than any vector of their tests; shorter ones are filled up with zeros, which changes no cosine.
_DIM = 64

_CORE = "llama-index-core/tests"
_STORES = "llama-index-integrations/vector_stores"
_RERANKERS = "llama-index-integrations/postprocessor"


@dataclass(frozen=True)
class Suite:
    """Test files that run in one process, since each integration has a package named ``tests``."""

    replaces: str
    files: tuple[str, ...]


SUITES = (
    Suite("SimpleVectorStore by ColBERTVectorStore", (f"{_CORE}/vector_stores/test_simple.py",)),
    Suite(
        "The default vector store of VectorStoreIndex and StorageContext by ColBERTVectorStore",
        (
            f"{_CORE}/indices/vector_store/test_simple.py",
            f"{_CORE}/indices/vector_store/test_simple_async.py",
            f"{_CORE}/indices/vector_store/test_retrievers.py",
            f"{_CORE}/indices/test_loading.py",
            f"{_CORE}/storage/test_storage_context.py",
        ),
    ),
    Suite(
        "ChromaVectorStore by ColBERTVectorStore",
        (f"{_STORES}/llama-index-vector-stores-chroma/tests/test_chromadb.py",),
    ),
    Suite(
        "DuckDBVectorStore by ColBERTVectorStore", (f"{_STORES}/llama-index-vector-stores-duckdb/tests/test_duckdb.py",)
    ),
    Suite(
        "ColbertRerank by ColBERTRerank",
        (f"{_RERANKERS}/llama-index-postprocessor-colbert-rerank/tests/test_postprocessor_colbert_rerank.py",),
    ),
    Suite(
        "SentenceTransformerRerank by CrossEncoderRerank",
        (f"{_RERANKERS}/llama-index-postprocessor-sbert-rerank/tests/test_postprocessor_sbert_rerank.py",),
    ),
    Suite(
        "ColbertIndex by ColBERTManagedIndex",
        ("llama-index-integrations/indices/llama-index-indices-managed-colbert/tests/test_indices_managed_colbert.py",),
    ),
)

_NODES_DICT = (
    "it looks for nodes in index_struct or the docstore, where LlamaIndex puts them only for stores without texts"
)
_PERSIST = "it loads a SimpleVectorStore's JSON file; an index is opened by its path"
_CONSTRUCTOR = "it calls a constructor of their client's own"
_NO_QUERY = "a query without a text is refused by name; get_nodes(filters=) lists nodes by a filter"
_TEXT_MATCH = "the operator is refused by name, as stores differ in what it matches; contains finds a part of a text"
_INSENSITIVE = "the operator is refused by name; contains distinguishes upper and lower case"
_NULL = "DuckDB leaves out nodes without the key; LlamaIndex's own store and this one include them under != and nin"
_NOT = "DuckDB's not means that some filter is false; here, as in LlamaIndex's own store, it means that none is true"
_NO_DEFAULT = "this class has no default model"
# A part of a test's path and name, and why this test does not apply. The first that fits is taken.
DOES_NOT_APPLY = {
    "test_simple.py::SimpleVectorStoreTest::test_query_with_textmatch": _TEXT_MATCH,
    "test_simple.py::test_from_persist_dir": _PERSIST,
    "test_simple.py::test_from_namespaced_persist_dir": _PERSIST,
    "vector_store/test_simple.py::test_build_simple": _NODES_DICT,
    "vector_store/test_simple.py::test_simple_delete": _NODES_DICT,
    "vector_store/test_simple.py::test_simple_async": _NODES_DICT,
    "vector_store/test_simple.py::test_simple_pickle": f"it pickles a store in memory; after that {_NODES_DICT}",
    "test_simple_async.py::test_simple_deletion": _NODES_DICT,
    "test_retrievers.py::test_simple_check_ids": "all vectors are equal; it expects SimpleVectorStore's order of ties, "
    "and reads its private fields",
    "test_retrievers.py::test_query_image_node": "LlamaIndex restricts its retriever to the image, over every store "
    "that stores texts; ColBERTVectorStore.as_index() finds both",
    "test_loading.py::test_load_index": _PERSIST,
    "test_chromadb.py::test_instance_creation": _CONSTRUCTOR,
    "test_chromadb.py::test_add_to_chromadb_and_query_by": _NO_QUERY,
    "test_duckdb.py::test_duckdb_installed": "it looks for the package duckdb",
    "test_duckdb.py::test_duckdb_from_local_and_params": _CONSTRUCTOR,
    "test_duckdb.py::TestStore::test_filter_text_match_insensitive": _INSENSITIVE,
    "test_duckdb.py::TestStore::test_filter_text_match": _TEXT_MATCH,
    "test_duckdb.py::TestStore::test_filter_operator_ne": _NULL,
    "test_duckdb.py::TestStore::test_filter_operator_nin": _NULL,
    "test_duckdb.py::TestStore::test_filter_not_condition": _NOT,
    "test_duckdb.py::TestStore::test_get_nodes[": "nodes come back without an embedding: the index has token vectors",
    "test_postprocessor_colbert_rerank.py::test_init": _NO_DEFAULT,
    "test_postprocessor_sbert_rerank.py": _NO_DEFAULT,
}


class Row(NamedTuple):
    """A row of a suite's table: a test, what its outcome means, and the reason."""

    test: str
    result: str
    reason: str


class GivenVectors:
    """An encoder of texts whose vectors are given beforehand, in the order in which the texts are encoded."""

    name = "given-vectors"
    dim = _DIM
    fingerprint = "given-vectors"

    def __init__(self) -> None:
        # Each thread adds nodes of its own.
        self.next = threading.local()

    def options(self) -> dict[str, Any]:
        return {"name_or_path": self.name}

    def encode_queries(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        return [_row(json.loads(text)) for text in texts]

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[npt.NDArray[np.float32]]:
        given, self.next.vectors = self.next.vectors[: len(texts)], self.next.vectors[len(texts) :]
        assert len(given) == len(texts)
        return [_row(vector) for vector in given]


def _row(vector: Sequence[float]) -> npt.NDArray[np.float32]:
    row = np.zeros((1, _DIM), dtype=np.float32)
    row[0, : len(vector)] = vector
    return row / max(float(np.linalg.norm(row)), 1e-12)


def _store_class() -> Any:
    from llama_index.core.bridge.pydantic import Field
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryResult

    from rerank_integrations import ColBERTIndex
    from rerank_integrations.llama_index import ColBERTVectorStore

    class GivenVectorStore(ColBERTVectorStore):
        """The store with `GivenVectors`: all else is as users have it."""

        # LlamaIndex hands over a query's embedding only then.
        is_embedding_query: bool = Field(default=True, frozen=True)

        def __init__(self, index: Any = None, **_: Any) -> None:
            super().__init__(ColBERTIndex.create(None, GivenVectors()) if index is None else index)

        def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
            self.index.model.next.vectors = [node.embedding or [] for node in nodes]  # type: ignore[attr-defined]
            return super().add(nodes, **kwargs)

        def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
            embedding = query.query_embedding
            query.query_str = None if embedding is None else json.dumps([float(number) for number in embedding])
            return super().query(query, **kwargs)

    return GivenVectorStore


def _folder(path: str) -> str:
    Path(path).mkdir(parents=True, exist_ok=True)
    return path


def _module(name: str, **attributes: Any) -> None:
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


def replace_classes() -> None:
    """Replace the classes of LlamaIndex by those of this package, before pytest imports a conftest."""
    import llama_index.core.storage.storage_context as storage_context
    import llama_index.core.vector_stores as vector_stores
    import llama_index.core.vector_stores.simple as simple

    from rerank_integrations import ColBERTIndex
    from rerank_integrations.llama_index import ColBERTManagedIndex, ColBERTRerank, CrossEncoderRerank

    store = _store_class()
    for module in (vector_stores, simple, storage_context):
        vars(module)["SimpleVectorStore"] = store

    class Chroma:
        def __init__(self) -> None:
            self.collections: dict[str, ColBERTIndex] = {}

        def get_or_create_collection(self, name: str, **_: Any) -> ColBERTIndex:
            return self.collections.setdefault(name, ColBERTIndex.create(None, GivenVectors()))

        def delete_collection(self, name: str) -> None:
            self.collections.pop(name).close()

    class ChromaStore(store):  # type: ignore[misc]
        def __init__(self, chroma_collection: Any = None, **_: Any) -> None:
            super().__init__(chroma_collection)

    class DuckDBStore(store):  # type: ignore[misc]
        def __init__(self, database_name: str = ":memory:", persist_dir: str = ".", **_: Any) -> None:
            path = None if database_name == ":memory:" else Path(tempfile.mkdtemp(dir=_folder(persist_dir))) / "index"
            super().__init__(ColBERTIndex.create(path, GivenVectors()))

    # Their test helpers import these, and the tests above use nothing of them.
    _module("openai")
    _module("chromadb", Client=Chroma)
    _module("duckdb", connect=lambda *_: None)
    _module("llama_index.vector_stores.chroma", ChromaVectorStore=ChromaStore)
    _module("llama_index.vector_stores.duckdb", DuckDBVectorStore=DuckDBStore)
    _module("llama_index.postprocessor.colbert_rerank", ColbertRerank=ColBERTRerank)
    _module("llama_index.postprocessor.sbert_rerank", SentenceTransformerRerank=CrossEncoderRerank)
    _module("llama_index.indices.managed.colbert", ColbertIndex=ColBERTManagedIndex)


class _Outcomes:
    """The outcome of each test, of its worst phase."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[str]] = {}


_outcomes = _Outcomes()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record a test's outcome, and the last line of its error."""
    name = report.nodeid
    if report.outcome == "passed":
        _outcomes.outcomes.setdefault(name, ["passed", ""])
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    _outcomes.outcomes[name] = [report.outcome, text.splitlines()[0] if text else ""]


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Record a file that cannot be imported as one failed test."""
    if report.failed:
        _outcomes.outcomes[report.nodeid] = ["failed", str(report.longrepr).splitlines()[-1]]


def pytest_sessionfinish() -> None:
    """Write the outcomes where the parent process reads them."""
    Path(os.environ[_RESULTS]).write_text(json.dumps(_outcomes.outcomes), "utf-8")


def run_suite(checkout: Path, suite: Suite) -> dict[str, list[str]]:
    """Return the outcome and the error of each test of a suite, by its file and name."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        environment = {
            **os.environ,
            _RESULTS: str(results),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        options = ["-q", "-p", "upstream_llama_index", "-p", "no:cacheprovider", "-n", "0", "-o", "asyncio_mode=auto"]
        config = Path(folder) / "pytest.ini"
        config.write_text("[pytest]\n", "utf-8")
        command = [sys.executable, "-m", "pytest", *options, "-c", str(config), f"--rootdir={checkout}"]
        ended = subprocess.run(
            [*command, *(str(checkout / file) for file in suite.files)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        if not results.exists():
            raise SystemExit(ended.stdout + ended.stderr)
        outcomes: dict[str, list[str]] = json.loads(results.read_text("utf-8"))
        return outcomes


def verdict(name: str, outcome: str, error: str) -> tuple[str, str]:
    """Return what a test's outcome means, and the reason."""
    for part, reason in DOES_NOT_APPLY.items():
        if part in name and outcome != "passed":
            return "does not apply", reason
    return {"passed": ("passes", ""), "skipped": ("does not apply", f"upstream skips it: {error}")}.get(
        outcome, ("fails", error)
    )


def rows_of(outcomes: dict[str, list[str]]) -> list[Row]:
    """Return the rows of a suite's table, by the path of its tests."""
    rows = []
    for nodeid, (outcome, error) in sorted(outcomes.items()):
        file, _, test = nodeid.partition("::")
        result, reason = verdict(nodeid, outcome, error)
        rows.append(Row(f"{Path(file).name}::{test}", result, reason.replace("|", " ")))
    return rows


def summary(suites: dict[str, list[Row]]) -> str:
    """Return how many tests of each suite pass, and the reasons of the others, as two tables."""
    lines = ["| suite | passes | fails | does not apply |", "|---|---|---|---|"]
    for suite, rows in suites.items():
        counts = Counter(row.result for row in rows)
        lines.append(f"| {suite} | {counts['passes']} | {counts['fails']} | {counts['does not apply']} |")
    lines += ["", "| tests that do not pass | result | reason |", "|---|---|---|"]
    for rows in suites.values():
        tests: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            if row.result != "passes":
                tests.setdefault((row.result, row.reason), []).append(f"`{row.test}`")
        lines += [f"| {', '.join(names)} | {result} | {reason} |" for (result, reason), names in tests.items()]
    return "\n".join(lines)


def main() -> None:
    """Run every suite of the checkout, and print the tables."""
    parser = argparse.ArgumentParser(description="Run LlamaIndex's own tests against this package's classes.")
    parser.add_argument("checkout", type=Path, help="a checkout of https://github.com/run-llama/llama_index")
    checkout = parser.parse_args().checkout.resolve()
    suites: dict[str, list[Row]] = {}
    for suite in SUITES:
        missing = [file for file in suite.files if not (checkout / file).is_file()]
        if missing:
            raise SystemExit(f"{checkout} has no {missing[0]}; expected a checkout of llama_index")
        print(f"\n### {suite.replaces}\n\n| test | result | reason |\n|---|---|---|")
        suites[suite.replaces] = rows_of(run_suite(checkout, suite))
        print("\n".join(f"| `{row.test}` | {row.result} | {row.reason} |" for row in suites[suite.replaces]))
    print(f"\n{summary(suites)}")
    counts = Counter(row.result for rows in suites.values() for row in rows)
    total = f"passes={counts['passes']} fails={counts['fails']} does_not_apply={counts['does not apply']}"
    print(f"\n{total}")
    raise SystemExit(counts["fails"] > 0)


if __name__ == "__main__":
    main()
elif _RESULTS in os.environ:
    replace_classes()
