"""The HTTP service under load, beside the same work by the library called in this process.

    python benchmarks/serve.py            # throughput and latency at 1, 16 and 64 callers
    python benchmarks/serve.py --quick    # the same with few requests
    python benchmarks/serve.py --minutes 10   # mixed load with restarts: no wrong answer, memory flat

A request ranks 8 documents by the starter cross-encoder, or searches 10 passages among docstrings of the standard
library by the starter ColBERT. The service and the load generator are processes of their own on this machine. Each
caller waits for its answer before it asks again. The generator sends bytes that were made before and looks at no answer
until a round is over; `client_cpu_share` is its part of the processor time of both. The library is called by as many
threads as there are callers, and, as the most that can be made of it, with the requests of all callers in one call. All
take turns in rounds, and each answer is compared with the library's.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import signal
import sys
import tempfile
from pathlib import Path

import torch
from serve_parts.comparison import compare
from serve_parts.soak import soak
from serve_parts.work import requests_from, reranking, searching

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel
from rerank_integrations.demo.docstrings import standard_library_passages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 requests of 100 passages, one round")
    parser.add_argument("--minutes", type=float, help="mixed load for so long, instead of the comparison")
    options = parser.parse_args()
    # The interpreter ends in order, and the services with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    few = options.quick or options.minutes
    passages = list(itertools.islice(standard_library_passages(), 100 if few else 1000))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f} before it began",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        if options.minutes:
            soak(path, passages, options.minutes)
            return
        with ColBERTIndex.create(path, ColBERTModel("starter")) as index:
            index.upsert(passages, show_progress=False)
        with ColBERTIndex.open(path, ColBERTModel("starter"), read_only=True) as index:
            works = [reranking(CrossEncoderModel("starter")), searching(index)]
            requests = requests_from(passages, 64 if options.quick else 128)
            compare(path, works, requests, rounds=1 if options.quick else 4)


if __name__ == "__main__":
    main()
