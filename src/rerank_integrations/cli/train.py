"""``rerank-integrations train``: a model fine-tuned on one's own pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank_integrations.cli.evaluate import quality_table
from rerank_integrations.cli.output import show, write_json
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation import Pipeline, Rerank, Retrieve, Row, evaluate, load_dataset, summarize
from rerank_integrations.training import Fitting, mine_negatives, read_pairs, train_colbert, train_cross_encoder
from rerank_integrations.training.preparing import require_training


class Kind(str, Enum):
    """What is trained."""

    COLBERT = "colbert"
    CROSS_ENCODER = "cross-encoder"


_TRAINERS: dict[Kind, Callable[..., None]] = {
    Kind.COLBERT: train_colbert,
    Kind.CROSS_ENCODER: train_cross_encoder,
}


def train(
    kind: Annotated[Kind, typer.Argument(help="What to train.")],
    pairs: Annotated[Path, typer.Argument(help="JSONL (also .gz): query, positive and, if wanted, a list negatives.")],
    out: Annotated[Path, typer.Option(help="A new folder for the checkpoint.")],
    base: Annotated[str, typer.Option(help="The checkpoint to start from: a name, a path or 'starter'.")] = "starter",
    data: Annotated[
        Path | None, typer.Option("--evaluate", metavar="DATA", help="Measure before and after on this collection.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgements of it: qrels/SPLIT.tsv.")] = "test",
    epochs: Annotated[float, typer.Option(help="How often each pair is seen.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Queries a step.")] = 16,
    negatives: Annotated[int, typer.Option(help="Hard negatives a query; those that are missing come from BM25.")] = 2,
    learning_rate: Annotated[float, typer.Option(help="Of the encoder.")] = 2e-5,
    max_length: Annotated[int, typer.Option(help="Tokens of a passage that are read while training.")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed gives the same order and negatives.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Fine-tune a ColBERT or a cross-encoder on your own pairs; stopped, it goes on where it was."""
    require_training()
    given = read_pairs(pairs)
    fitting = Fitting(
        steps=_steps(epochs, len(given), batch_size),
        batch_size=batch_size,
        learning_rate=learning_rate,
        negatives=negatives,
        max_length=max_length,
        seed=seed,
    )
    examples = mine_negatives(given, negatives, seed=seed)
    work = partial(_TRAINERS[kind], base, {"pairs": examples}, out, fitting)
    if data is not None:
        # Before minutes of measuring: all that training would refuse.
        work(check_only=True)
        # Before an hour of training: a collection that cannot be read, and the figures to beat.
        _measure(kind, {"before": base}, data, split, out)
    work()
    rows = [] if data is None else _measure(kind, {"before": base, "after": str(out)}, data, split, out)
    if as_json:
        write_json(
            {"model": str(out), "pairs": len(examples), **asdict(fitting), "rows": [asdict(row) for row in rows]}
        )
        return
    show(f"{out}: trained on {len(examples):,} pairs, {fitting.steps:,} steps")
    if data is not None:
        show(quality_table(rows, f"{data.resolve().name}: before and after"))


def _steps(epochs: float, pairs: int, batch_size: int) -> int:
    passed = epochs * pairs
    if not 0 < passed < math.inf:
        raise InvalidInputError(f"epochs is {epochs!r}; expected a finite number above 0")
    # A batch of none or fewer is refused with the other settings.
    return math.ceil(passed / max(1, batch_size))


def _measure(kind: Kind, models: dict[str, str], data: Path, split: str, out: Path) -> list[Row]:
    results = out.with_name(f"{out.name}-evaluation")
    pipelines = [Pipeline(name, **_stages(kind, model)) for name, model in models.items()]
    measured = evaluate(data, pipelines, results, split=split, callers=(1,))
    return summarize(measured, load_dataset(data, split).qrels)


def _stages(kind: Kind, model: str) -> dict[str, Any]:
    if kind is Kind.COLBERT:
        return {"retrieve": Retrieve("colbert", model, nbits=None)}
    return {"retrieve": Retrieve("bm25"), "rerank": (Rerank("cross-encoder", model),)}
