"""The starter models beside BM25, a pooled vector and one another, and ``docs/reference/results.md`` made of it.

    python benchmarks/results.py [--data ../shared/data/eval] [--kept FOLDER] [--quick] [--write]

Every preset of ``rerank-integrations evaluate`` on each collection, and the ColBERT that training started from. Results
are kept (``--kept``), so that it goes on where it was stopped. ``--write`` writes docs/reference/results.md.
``--quick`` takes fifty queries of cranfield and the pipelines that take seconds.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import MultiVectorEncoder

from rerank_integrations import starter
from rerank_integrations.evaluation import (
    Measured,
    Pipeline,
    Retrieve,
    Row,
    evaluate,
    load_dataset,
    presets,
    summarize,
)

ROOT = Path(__file__).parents[1]
# The most queries of a set, since a reranker reads fifty passages per query.
QUERIES = {"scifact": None, "cranfield": None, "squad_dev": 300, "dureader_search_demo": None, "cmrc2018_dev": 100}
QUICK = ("bm25", "dense", "colbert-2bit", "untrained")
COLUMNS = ("recall@10", "recall@100", "nDCG@10", "MRR@10", "p50 ms", "p95 ms", "encode", "retrieve", "rerank")


def pipelines(folder: Path) -> list[Pipeline]:
    """Return every preset, and exact search by the ColBERT that training started from."""
    untrained = folder / "untrained"
    modules = starter.colbert_modules(weights=ROOT / "training" / "untrained.safetensors")
    MultiVectorEncoder(modules=modules).save_pretrained(str(untrained))
    return [*presets().values(), Pipeline("untrained", Retrieve("colbert", str(untrained), nbits=None))]


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [f"| | {' | '.join(COLUMNS)} | build s | index MB | peak MB |", "|---" * (len(COLUMNS) + 4) + "|"]
    for row in rows:
        chance = "~" if row.may_be_chance else ""
        quality = [f"{row.quality[name]:.3f}{chance if name == 'nDCG@10' else ''}" for name in COLUMNS[:4]]
        ms = [*row.ms["total"][:2], *(row.ms[stage][0] for stage in ("encode", "retrieve", "rerank"))]
        sizes = [f"{value:,.0f}" for value in (row.build_s or 0, row.index_mb or 0, row.peak_mb)]
        lines.append(f"| {row.name} | {' | '.join([*quality, *(f'{value:,.1f}' for value in ms), *sizes])} |")
    return lines


def page(sections: Sequence[str], machines: Sequence[str], command: str) -> str:
    """Return the whole of docs/reference/results.md."""
    return f"""# Results

Written by `{command}`, which measured each figure, on: {"; ".join(machines)}.

A `~` marks an nDCG@10 that may differ from BM25's by chance alone (paired t-test, p >= .05). Milliseconds are of one
query, asked alone: p50 and p95 of the whole, p50 of its stages. Rerankers read the best 50 of BM25 or of the pooled
vector. `untrained` is the ColBERT that the starter's training began with, by exact search. The collections were used to
choose the starter models' settings, so their figures are a little kind.

{chr(10).join(sections)}"""


def machine_in_words(result: Measured) -> str:
    """Return the machine of a result in words, and what it ran."""
    made = result.origin
    versions = [f"{name} {made['packages'][name]}" for name in ("torch", "transformers", "sentence-transformers")]
    machine = f"{made['processor']}, {made['cores']} cores, {made['memory_gb']} GB, Python {made['python']}"
    return ", ".join([machine, *versions])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "eval")
    parser.add_argument("--kept", type=Path, default=Path.home() / ".cache/rerank-integrations/results")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--sets", default=",".join(QUERIES))
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("--write is for all of it; --quick measures a part")
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} is not there; name a folder of collections in BEIR layout by --data")
    chosen = pipelines(arguments.kept)
    names = ["cranfield"] if arguments.quick else arguments.sets.split(",")
    if arguments.quick:
        chosen = [pipeline for pipeline in chosen if pipeline.name in QUICK]
    sections, line, machines = [], [], []
    for name in names:
        queries = 50 if arguments.quick else QUERIES[name]
        folder = arguments.data / name
        results = evaluate(folder, chosen, arguments.kept / f"{name}-{queries or 'all'}", queries=queries)
        data = load_dataset(folder, queries=queries)
        machines += [machine_in_words(result) for result in results]
        rows = summarize(results, data.qrels)
        title = f"## {name}: {len(data.passages):,} passages, {len(data.queries):,} queries"
        sections.append("\n".join([title, "", *table(rows), ""]))
        print(sections[-1])
        line += [f"{name}_{row.name}_ndcg10={row.quality['nDCG@10']:.4f}" for row in rows]
    if arguments.write:
        command = shlex.join(["python", "benchmarks/results.py", *sys.argv[1:]])
        written = page(sections, list(dict.fromkeys(machines)), command)
        (ROOT / "docs" / "reference" / "results.md").write_text(written, encoding="utf-8")
    print("; ".join(dict.fromkeys(machines)))
    print(" ".join(line))


if __name__ == "__main__":
    main()
