"""Train the multilingual starters, and write the difference of each to multilingual-e5-small into the package.

    python training/multilingual.py colbert ../shared/data WORK
    python training/multilingual.py cross-encoder ../shared/data WORK
    python training/multilingual.py untrained WORK

The ColBERT starts from the projection that `fit_projection.py` computed, the cross-encoder from the trained ColBERT.
The lower half of the layers stays as it is. An interrupted fit goes on from the last checkpoint in WORK; negatives are
mined once and stored there. The last command writes the ColBERT that training starts from, for comparison.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from multilingual_mixture import by_length, multilingual_mixture
from sentence_transformers import CrossEncoder, MultiVectorEncoder
from tokenizers import Tokenizer

from rerank_integrations import ColBERTModel, starter
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.core.models.loaded_cross_encoder import load_pair_model
from rerank_integrations.training import Example, Fitting, train_colbert, train_cross_encoder

NAME = starter.MULTILINGUAL
UNTRAINED = Path(__file__).with_name("untrained_multilingual.safetensors")
PACKAGE = Path(starter.__file__).parent
COLBERT = PACKAGE / "multilingual_colbert.safetensors"
CROSS_ENCODER = PACKAGE / "multilingual_cross_encoder.safetensors"
# Of the differences of the upper six layers: it keeps a file under 3 MB.
RANK = 32
FROZEN_LAYERS = 6

app = typer.Typer(add_completion=False, help=__doc__)
Limit = Annotated[int | None, typer.Option(help="At most so many examples of each source, for a trial.")]
Mined = Annotated[bool, typer.Option(help="Draw half of the negatives from the model that training starts from.")]


@app.callback()
def main() -> None:
    """Show what training logs: the steps per second."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")


@app.command()
def untrained(work: Path) -> None:
    """Write the ColBERT of the fitted projection alone, as a checkpoint."""
    prompts = dict(starter.STARTERS[NAME].prompts)
    modules = starter.colbert_modules(NAME, weights=UNTRAINED)
    MultiVectorEncoder(modules=modules, prompts=prompts).save_pretrained(str(work / "untrained"))


@app.command()
def colbert(
    data: Path,
    work: Path,
    steps: int = 600,
    batch_size: int = 16,
    seed: int = 0,
    mined: Mined = True,
    limit: Limit = None,
) -> None:
    """Train the ColBERT."""
    base = work / "untrained"
    if not (base / "modules.json").is_file():
        untrained(work)
    fitting = Fitting(
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-5,
        head_learning_rate=1e-4,
        negatives=2,
        max_length=160,
        seed=seed,
        save_steps=50,
        frozen_layers=FROZEN_LAYERS,
    )
    model = ColBERTModel(base) if mined else None
    sources = _stored(
        work / f"negatives-{seed}-{'mined' if mined else 'bm25'}-{fitting.negatives}-{limit or 'all'}.json",
        lambda: multilingual_mixture(data, fitting.negatives, seed, model, limit),
    )
    train_colbert(base, by_length(sources, _count), work / "colbert", fitting)
    trained = MultiVectorEncoder(str(work / "colbert"), device="cpu")
    linear = trained[1].linear
    head = {"linear.weight": linear.weight, "linear.bias": linear.bias}
    path = COLBERT if limit is None else work / COLBERT.name
    starter.write_weights(path, trained[0].model, head, RANK, NAME)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


@app.command("cross-encoder")
def cross_encoder(
    data: Path, work: Path, steps: int = 400, batch_size: int = 8, seed: int = 0, limit: Limit = None
) -> None:
    """Train the cross-encoder, taught by the trained ColBERT, which also gives it negatives."""
    modules = starter.cross_encoder_modules(NAME, weights=COLBERT if limit is None else work / COLBERT.name)
    CrossEncoder(modules=modules).save_pretrained(str(work / "unread"))
    fitting = Fitting(
        steps=steps,
        batch_size=batch_size,
        learning_rate=3e-5,
        head_learning_rate=3e-4,
        negatives=4,
        max_length=224,
        seed=seed,
        save_steps=50,
        frozen_layers=FROZEN_LAYERS,
    )
    teacher = ColBERTModel(work / "colbert")
    sources = _stored(
        work / f"negatives-{seed}-taught-{fitting.negatives}-{limit or 'all'}.json",
        lambda: multilingual_mixture(data, fitting.negatives, seed, teacher, limit),
    )
    train_cross_encoder(work / "unread", by_length(sources, _count), work / "cross-encoder", fitting, teacher=teacher)
    trained = load_pair_model(LoadOptions(str(work / "cross-encoder"), dtype="float32"), "cpu")
    path = CROSS_ENCODER if limit is None else work / CROSS_ENCODER.name
    starter.write_weights(path, trained[0].model, trained[1].state_dict(), RANK, NAME)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def _stored(path: Path, make: Callable[[], dict[str, list[Example]]]) -> dict[str, list[Example]]:
    """Return the examples in a file, made first if there is none: mining takes as long as hundreds of steps."""
    if not path.is_file():
        temporary = path.with_suffix(".part")
        rows = {name: [asdict(example) for example in examples] for name, examples in make().items()}
        temporary.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        temporary.replace(path)
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: [Example(row["query"], row["positive"], tuple(row["negatives"])) for row in examples]
        for name, examples in rows.items()
    }


@functools.cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(starter.base_path(NAME) / "tokenizer.json"))


@functools.cache
def _count(text: str) -> int:
    """Return the number of a text's tokens; a passage is in many examples."""
    return len(_tokenizer().encode(text).ids)


if __name__ == "__main__":
    app()
