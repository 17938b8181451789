"""Token pooling: bytes per token and nDCG@10 of indexes with each pool factor, beside exact search of all tokens.

    python benchmarks/pooling.py [--quick] [--data ../shared/data] [--cache FOLDER] [--sets scifact,cranfield,squad_dev]
        [--queries N] [--factors 1,1.5,2,3]

Passages are encoded once by the starter model and kept under the cache folder. Exact is MaxSim of float16 vectors, all
of them. Bytes are those of segments and codecs, without the catalog's texts, over the tokens before pooling. The share
is that of the exact nDCG@10. ``--quick`` takes cranfield and 50 queries; without it squad_dev has 1,000 queries.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common.report import Report
from engines.environments import CACHE
from index_parts import ours
from index_parts.data import Corpus, Floats, Queries, best, cached_corpus, exact_scores
from rich.table import Table

from rerank_integrations import ColBERTIndex, ColBERTModel, Passage
from rerank_integrations.evaluation import evaluate_run, load_dataset
from rerank_integrations.evaluation.metrics import means

SETS = ("scifact", "cranfield", "squad_dev")
K = 10
_METRIC = "nDCG@10"
_MAX_QUERIES = 1000


@dataclass
class Bench(Report):
    figures: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Collection:
    """A test collection with its token vectors; passages are known by their numbers."""

    name: str
    corpus: Corpus
    queries: Queries
    qrels: dict[str, dict[str, int]]

    @property
    def tokens(self) -> int:
        return int(self.corpus.lengths.sum())

    def ndcg(self, found: list[list[int]]) -> float:
        """Return the mean nDCG@10 of the best passages of each query, best first."""
        run = {
            str(query): {str(number): float(K - place) for place, number in enumerate(numbers[:K])}
            for query, numbers in enumerate(found)
        }
        return 100 * means(evaluate_run(self.qrels, run))[_METRIC]


def read(folder: Path, cache: Path, model: ColBERTModel, queries: int) -> Collection:
    data = load_dataset(folder, queries=queries)
    numbers = {passage.id: str(number) for number, passage in enumerate(data.passages)}
    corpus = cached_corpus([passage.text for passage in data.passages], cache, model)
    texts = list(data.queries.values())
    vectors: list[Floats] = [np.asarray(query, dtype=np.float32) for query in model.encode_queries(texts)]
    qrels = {
        str(query): {numbers[passage]: grade for passage, grade in data.qrels[key].items()}
        for query, key in enumerate(data.queries)
    }
    return Collection(folder.name, corpus, Queries(texts, vectors), qrels)


def measure(bench: Bench, collection: Collection, factor: float, nbits: int, exact: float, table: Table) -> None:
    """Build an index with this pool factor and search it for every query."""
    dim = int(collection.queries.vectors[0].shape[1])
    encoder = ours.GivenVectors(dim, collection.queries)
    with tempfile.TemporaryDirectory(prefix="pooling-") as folder:
        start = time.perf_counter()
        with ColBERTIndex.create(Path(folder) / "index", encoder, nbits=nbits, pool_factor=factor) as index:
            index.upsert(passages(collection, encoder), show_progress=False)
            seconds = time.perf_counter() - start
            stats = index.stats()
            hits = index.search_many(collection.queries.texts, K)
    ndcg = collection.ndcg([[int(hit.id) for hit in of_query] for of_query in hits])
    size = stats.vector_bytes / collection.tokens
    row = [collection.name, f"{factor:g}", stats.kind, f"{nbits}", f"{stats.tokens}", f"{size:.1f}", f"{seconds:.1f}"]
    table.add_row(*row, f"{ndcg:.2f}", f"{ndcg / exact:.4f}")
    stem = f"{collection.name}_factor_{factor:g}_{nbits}bit"
    bench.note(f"{stem}_bytes_per_token", size)
    bench.note(f"{stem}_ndcg10", ndcg)
    bench.note(f"{stem}_share_of_exact", ndcg / exact)


def passages(collection: Collection, encoder: ours.GivenVectors) -> list[Passage]:
    """Return the passages, and give their vectors to the encoder; equal texts have equal vectors."""
    corpus = collection.corpus
    count = len(corpus.lengths)
    vectors = np.split(corpus.tokens(0, count).astype(np.float32), np.cumsum(corpus.lengths)[:-1])
    rows = [Passage(str(number), f"{number} {text}") for number, text in corpus.texts(0, count)]
    encoder.passages.update((passage.text, vector) for passage, vector in zip(rows, vectors, strict=True))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--sets", default=",".join(SETS), help="folders of the data's eval, joined by commas")
    parser.add_argument("--queries", type=int, default=_MAX_QUERIES, help="at most so many of each set")
    parser.add_argument("--factors", default="1,1.5,2,3")
    parser.add_argument("--nbits", type=int, default=2)
    options = parser.parse_args()
    names = ["cranfield"] if options.quick else options.sets.split(",")
    folders = [options.data / "eval" / name for name in names]
    if absent := [str(folder) for folder in folders if not folder.is_dir()]:
        print(f"not run: there is no {', '.join(absent)}; --data names the folder that holds eval")
        return
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}", file=sys.stderr)
    bench, model = Bench(), ColBERTModel("starter")
    headings = ("collection", "pool factor", "kind", "bits", "tokens", "B/original token", "build s")
    table = Table(*headings, "nDCG@10", "of exact", title="token pooling; exact is float16, all tokens")
    for folder in folders:
        collection = read(folder, options.cache, model, 50 if options.quick else options.queries)
        bench.tell(f"{collection.name}: {len(collection.corpus.lengths)} passages, {collection.tokens} tokens")
        exact = collection.ndcg(best(exact_scores(collection.corpus, collection.queries), K))
        table.add_row(collection.name, "", "float16", "16", f"{collection.tokens}", "256.0", "", f"{exact:.2f}", "1")
        bench.note(f"{collection.name}_exact_ndcg10", exact)
        for factor in (float(text) for text in options.factors.split(",")):
            measure(bench, collection, factor, options.nbits, exact, table)
    bench.show(table)
    bench.finish()


if __name__ == "__main__":
    main()
