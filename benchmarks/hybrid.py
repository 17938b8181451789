"""Hybrid search in one index: nDCG@10 beside both of its parts, the cost of the text index, and times per query.

    python benchmarks/hybrid.py [--quick] [--data FOLDER] [--only scifact,cranfield]

The weight of BM25 is fitted by five-fold cross-validation: each query is answered with a weight that was fitted to the
queries of the other folds. The model is the starter, which is English: on the Chinese collection it is weak. The text
index alone is timed over the stored passages, and over resampled ones at 100,000 passages.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from common.report import Report
from rich.table import Table

from rerank_integrations import ColBERTIndex, ColBERTModel, Passage
from rerank_integrations.evaluation import Dataset, WeightFit, fit_bm25_weight, load_dataset

COLLECTIONS = ("scifact", "cranfield", "dureader_search_demo")
QUICK_PASSAGES, QUICK_QUERIES = 300, 40
LARGE = 100_000


class Bench(Report):
    def __init__(self) -> None:
        self.figures = {}
        self.failures = []
        self.table = Table(
            "collection", "passages", "ColBERT", "BM25", "hybrid", "weight", "by fold", "text bytes", "of the index",
            "rebuilt in s", "ColBERT ms", "BM25 ms", "hybrid ms",
        )  # fmt: skip

    def collection(self, data: Dataset, cache: Path) -> None:
        """Measure one collection; its index stays in `cache`."""
        model = ColBERTModel("starter")
        with ColBERTIndex.open_or_create(cache, model) as index:
            if len(index) != len(data.passages):
                self.tell(f"{data.name}: encoding {len(data.passages)} passages")
                index.upsert(data.passages)
            index.compact()
            rebuilt = timed(index.rebuild_text_index)
            fit = fit_bm25_weight(index, data)
            ms = {kind: median_ms(index, list(data.queries.values()), kind) for kind in ("colbert", "bm25", "hybrid")}
            self.row(data, index, fit, rebuilt, ms)

    def row(self, data: Dataset, index: ColBERTIndex, fit: WeightFit, rebuilt: float, ms: dict[str, float]) -> None:
        stats = index.stats()
        text_bytes = stats.text_bytes or 0
        chance = {name: "" if (p := fit.p_value[name]) is None or p < 0.05 else "~" for name in fit.p_value}
        self.table.add_row(
            data.name, f"{stats.passages:,}", f"{fit.ndcg['colbert']:.3f}{chance['colbert']}",
            f"{fit.ndcg['bm25']:.3f}{chance['bm25']}", f"{fit.ndcg['hybrid']:.3f}", f"{fit.weight:g}",
            " ".join(f"{weight:g}" for weight in fit.fold_weights), f"{text_bytes:,}",
            f"{100 * text_bytes / stats.bytes:.1f} %", f"{rebuilt:.2f}", *(f"{value:.1f}" for value in ms.values()),
        )  # fmt: skip
        for name, value in fit.ndcg.items():
            self.note(f"{data.name}_{name}", value)
        self.note(f"{data.name}_weight", fit.weight)
        self.note(f"{data.name}_text_bytes_per_passage", text_bytes / stats.passages)
        self.note(f"{data.name}_rebuild_s", rebuilt)
        for kind, value in ms.items():
            self.note(f"{data.name}_{kind}_ms", value)
        self.note(f"{data.name}_above_both", fit.is_better)

    def large(self, data: Dataset, count: int) -> None:
        """Time BM25 alone over passages resampled word by word, in an index whose vectors are trivial."""
        words = [word for passage in data.passages for word in passage.text.split()]
        drawn = random.Random(0)
        mean = len(words) // len(data.passages)
        with ColBERTIndex.create(None, NoVectors()) as index:
            texts = (" ".join(drawn.choices(words, k=mean)) for _ in range(count))
            built = timed(partial(index.upsert, (Passage(str(n), text) for n, text in enumerate(texts))))
            queries = list(data.queries.values())[:50]
            first, again = (median_ms(index, queries, "bm25", warm_up=False) for _ in range(2))
        self.tell(
            f"{count:,} passages of {mean} words: stored in {built:.0f} s, {first:.1f} ms at first, {again:.1f} again"
        )
        self.note("large_first_ms", first)
        self.note("large_again_ms", again)


class NoVectors:
    """An encoder of one constant vector per text, so that only the texts cost anything."""

    name, dim, fingerprint = "constant", 8, "constant"

    def options(self) -> dict[str, str]:
        return {"name_or_path": "constant"}

    def encode_queries(self, texts: list[str]) -> list[np.ndarray]:
        return [np.eye(1, self.dim, dtype=np.float32) for _ in texts]

    def encode_documents(self, texts: list[str], show_progress: bool = False) -> list[np.ndarray]:
        return self.encode_queries(texts)


def timed(call: object) -> float:
    assert callable(call)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_ms(index: ColBERTIndex, queries: list[str], kind: str, *, warm_up: bool = True) -> float:
    """Return the median time of a whole query, encoding included."""
    if warm_up:
        index.search(queries[0], 10, search_type=kind)
    return 1e3 * float(np.median([timed(partial(index.search, query, 10, search_type=kind)) for query in queries]))


def sampled(data: Dataset) -> Dataset:
    """Return a few queries with their relevant passages, and some others."""
    queries = dict(list(data.queries.items())[:QUICK_QUERIES])
    qrels = {key: data.qrels[key] for key in queries}
    wanted = {passage for grades in qrels.values() for passage in grades}
    judged = [passage for passage in data.passages if passage.id in wanted]
    others = [passage for passage in data.passages if passage.id not in wanted][:QUICK_PASSAGES]
    return Dataset(data.name, (*judged, *others), queries, qrels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few passages and queries of one collection")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with eval/COLLECTION")
    parser.add_argument("--only", default=",".join(COLLECTIONS), help="collections, with commas between")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/rerank-integrations/benchmarks/hybrid")
    options = parser.parse_args()
    names = ["cranfield"] if options.quick else options.only.split(",")
    folders = [options.data / "eval" / name for name in names]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        print(f"left out: there is no {', '.join(missing)}", file=sys.stderr)
        print("left_out=1")
        return
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}", file=sys.stderr)
    bench = Bench()
    with tempfile.TemporaryDirectory() as folder:
        for path in folders:
            data = load_dataset(path, "test")
            if options.quick:
                bench.collection(sampled(data), Path(folder) / data.name)
            else:
                bench.collection(data, options.cache / data.name)
        bench.large(data, 2_000 if options.quick else LARGE)
    bench.show(bench.table)
    bench.finish()


if __name__ == "__main__":
    main()
