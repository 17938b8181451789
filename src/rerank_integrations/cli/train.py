"""``rerank-integrations train``: fine-tune a model on the user's own pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rerank_integrations.cli.evaluate import quality_table
from rerank_integrations.cli.options import AsJson, ModelKind, Split
from rerank_integrations.cli.output import show, write_json
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation import Pipeline, Rerank, Retrieve, Row, evaluate, load_dataset, summarize
from rerank_integrations.training import Fitting, mine_negatives, read_pairs, train_colbert, train_cross_encoder
from rerank_integrations.training.fitting import require_training

_TRAINERS: dict[ModelKind, Callable[..., None]] = {
    ModelKind.COLBERT: train_colbert,
    ModelKind.CROSS_ENCODER: train_cross_encoder,
}


def train(
    kind: Annotated[ModelKind, typer.Argument(help="Kind of the model.")],
    pairs: Annotated[
        Path, typer.Argument(help="JSONL file (also .gz) with query, positive and optionally a list of negatives.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the checkpoint.")],
    base: Annotated[str, typer.Option(help="Checkpoint to start from: name or path, or 'starter'.")] = "starter",
    data: Annotated[
        Path | None,
        typer.Option(
            "--evaluate", metavar="DATA", help="Test collection on which the model is measured before and after."
        ),
    ] = None,
    split: Split = "test",
    epochs: Annotated[float, typer.Option(help="How often each pair is used.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Queries per step.")] = 16,
    negatives: Annotated[int, typer.Option(help="Hard negatives per query; BM25 finds those that the file lacks.")] = 2,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate of the encoder.")] = 2e-5,
    max_length: Annotated[int, typer.Option(help="Tokens of a passage that training reads.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the order and of the negatives.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a ColBERT model or a cross-encoder on your own pairs; a run that was stopped continues where it was."""
    require_training()
    examples = read_pairs(pairs)
    fitting = Fitting(
        steps=_steps(epochs, len(examples), batch_size),
        batch_size=batch_size,
        learning_rate=learning_rate,
        negatives=negatives,
        max_length=max_length,
        seed=seed,
    )
    examples = mine_negatives(examples, negatives, seed=seed)
    run = partial(_TRAINERS[kind], base, {"pairs": examples}, out, fitting)
    if data is not None:
        # Training checks its arguments before minutes of measuring.
        run(check_only=True)
        # An unreadable collection is an error before an hour of training; the figures are the ones to beat.
        _measure(kind, {"before": base}, data, split, out)
    run()
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
    queries = epochs * pairs
    if not 0 < queries < math.inf:
        raise InvalidInputError(f"epochs is {epochs!r}; expected a finite number above 0")
    # A batch size below 1 is refused with the other settings.
    return math.ceil(queries / max(1, batch_size))


def _measure(kind: ModelKind, models: dict[str, str], data: Path, split: str, out: Path) -> list[Row]:
    results = out.with_name(f"{out.name}-evaluation")
    pipelines = [_pipeline(kind, name, model) for name, model in models.items()]
    measured = evaluate(data, pipelines, results, split=split, callers=(1,))
    return summarize(measured, load_dataset(data, split).qrels)


def _pipeline(kind: ModelKind, name: str, model: str) -> Pipeline:
    if kind is ModelKind.COLBERT:
        return Pipeline(name, Retrieve("colbert", model, nbits=None))
    return Pipeline(name, Retrieve("bm25"), rerank=(Rerank("cross-encoder", model),))
