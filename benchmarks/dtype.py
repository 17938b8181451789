"""Encoding speed in bfloat16 against float32, alternating in one run: does ``dtype="auto"`` choose well here?

    python benchmarks/dtype.py [--quick]

The starter model (22 million parameters), and an encoder of BERT-base's shape (110 million) with random weights, since
speed does not depend on their values.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common.precision import automatic_dtype
from transformers import BertConfig, BertModel

from rerank_integrations import ColBERTModel


def passages(count: int) -> list[str]:
    """Return docstrings of the standard library's ``json``, ``inspect`` and friends, cut to 400 characters."""
    texts = [
        text[:400]
        for module in (argparse, inspect, json, os, statistics)
        for _, thing in inspect.getmembers(module)
        if (text := inspect.getdoc(thing)) and len(text) > 120
    ]
    return list(dict.fromkeys(texts))[:count]


def alternate(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each of `runs`, taken in turns so that noise hits them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    # The first round warms up.
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def bert_base(dtype: torch.dtype) -> Callable[[], Any]:
    model = BertModel(BertConfig()).to(dtype).eval()
    ids = torch.randint(1000, 20000, (16, 128), generator=torch.Generator().manual_seed(0))

    def run() -> Any:
        with torch.inference_mode():
            return model(input_ids=ids, attention_mask=torch.ones_like(ids))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    auto = automatic_dtype()
    texts = passages(48 if quick else 96)
    starters = {name: ColBERTModel("starter", dtype=name, device="cpu") for name in ("float32", "bfloat16")}
    rounds = 3 if quick else 9
    starter = alternate(
        {name: (lambda model=model: model.encode_documents(texts)) for name, model in starters.items()}, rounds
    )
    base = alternate({"float32": bert_base(torch.float32), "bfloat16": bert_base(torch.bfloat16)}, rounds)
    print(f"torch {torch.__version__}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads", file=sys.stderr)
    for name in starters:
        print(f"starter {name}: {len(texts) / starter[name]:.0f} passages/s", file=sys.stderr)
        print(f"BERT-base shape {name}: {16 / base[name]:.1f} passages of 128 tokens/s", file=sys.stderr)
    print(
        f"auto={auto} starter_speedup={starter['float32'] / starter['bfloat16']:.2f} "
        f"bert_base_speedup={base['float32'] / base['bfloat16']:.2f}"
    )


if __name__ == "__main__":
    main()
