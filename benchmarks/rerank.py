"""The rerankers: from stored vectors, compared with sentence-transformers and LlamaIndex, in windows, under threads.

    python benchmarks/rerank.py [--quick] [--data ../shared/data] [--cache FOLDER] [--only PART ...]

Both starter models on the CPU, on real passages and queries; candidates are BM25's best. Systems that are compared
answer each query in turn in one process, after a warm-up, and a time is the median of the queries. The parts:

stored         ColBERT over 100 candidates of an index (4 bits, 2 bits, float16), and encoding them anew
cross-encoder  our cross-encoder at each precision and backend, and CrossEncoder.predict in float32, 100 candidates
quality        nDCG@10 of our and LlamaIndex's own rerankers on cranfield and scifact, 100 candidates
windows        whether an answer beyond the model's length is found, with windows and without
threads        32 threads through one component: the same answers, and how many a second

``quality`` compares with llama-index-postprocessor-colbert-rerank 0.6.0 if it is installed (``pip install --no-deps``).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import transformers
from engines.environments import CACHE

from rerank_integrations.errors import TruncationWarning

# Each part is a function of a module that is imported only when it runs, since two of them need LlamaIndex.
PARTS = ("stored", "cross-encoder", "quality", "windows", "threads")
FILES = ("eval/squad_dev", "eval/cranfield", "eval/scifact", "scale/foldoc.corpus.jsonl.gz")


def machine() -> str:
    from common.precision import automatic_dtype

    from rerank_integrations.evaluation.measuring import origin

    made = origin()
    versions = dict(made["packages"]) | {
        name: installed(name) for name in ("llama-index-core", "onnxruntime", "openvino")
    }
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{made['processor']}, {made['cores']} cores, {made['memory_gb']} GB, load {load}, Python {made['python']}, "
        f"{' '.join(f'{name} {number}' for name, number in versions.items())}; dtype auto is {automatic_dtype()}"
    )


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few queries, and an index of 600 passages")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--cache", type=Path, default=CACHE / "rerank", help="keeps the vectors of the indexed passages"
    )
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    options = parser.parse_args()
    absent = [name for name in FILES if not (options.data / name).exists()]
    if absent:
        print(f"not run: {options.data} holds no {', '.join(absent)}; --data names the folder that does")
        return
    from rerank_parts.bench import FULL, QUICK, Bench

    transformers.utils.logging.disable_progress_bar()
    # Some abstracts are longer than the models read; every system cuts them at the same position.
    warnings.simplefilter("ignore", TruncationWarning)
    print(machine(), file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="rerank-benchmark-") as work:
        bench = Bench(options.data, options.cache, Path(work), QUICK if options.quick else FULL)
        for part in PARTS:
            if part in (options.only or PARTS):
                name = part.replace("-", "_")
                getattr(importlib.import_module(f"rerank_parts.{name}"), name)(bench)
        bench.close()
    bench.finish()


if __name__ == "__main__":
    main()
