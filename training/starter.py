"""Train the two starter models, and write the difference of each to all-MiniLM-L6-v2 into the package.

    python training/starter.py colbert ../shared/data WORK
    python training/starter.py cross-encoder ../shared/data WORK
    python training/starter.py untrained WORK

The cross-encoder starts from the trained ColBERT. An interrupted fit goes on from the last checkpoint in WORK. The last
command writes the ColBERT that training starts from, for comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from mixture import mixture, taught_mixture
from sentence_transformers import CrossEncoder, MultiVectorEncoder

from rerank_integrations import ColBERTModel, starter
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.core.models.loaded_cross_encoder import load_pair_model
from rerank_integrations.training import Fitting, train_colbert, train_cross_encoder

UNTRAINED = Path(__file__).with_name("untrained.safetensors")
# The rank of the difference to all-MiniLM-L6-v2: it keeps a file under 3 MB.
RANK = 32

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def untrained(work: Path) -> None:
    """Write the ColBERT of the fitted projection alone, as a checkpoint."""
    MultiVectorEncoder(modules=starter.colbert_modules(weights=UNTRAINED)).save_pretrained(str(work / "untrained"))


@app.command()
def colbert(data: Path, work: Path, steps: Annotated[int, typer.Option()] = 450, seed: int = 0) -> None:
    """Train the ColBERT."""
    untrained(work)
    fitting = Fitting(
        steps=steps, batch_size=16, learning_rate=2e-5, head_learning_rate=1e-4, negatives=1, max_length=180, seed=seed
    )
    train_colbert(work / "untrained", mixture(data, fitting.negatives, seed), work / "colbert", fitting)
    trained = MultiVectorEncoder(str(work / "colbert"), device="cpu")
    starter.write_weights(starter.COLBERT, trained[0].model, {"linear.weight": trained[1].linear.weight}, RANK)


@app.command("cross-encoder")
def cross_encoder(data: Path, work: Path, steps: Annotated[int, typer.Option()] = 300, seed: int = 0) -> None:
    """Train the cross-encoder, taught by the ColBERT of the package."""
    modules = starter.cross_encoder_modules(weights=starter.COLBERT)
    CrossEncoder(modules=modules).save_pretrained(str(work / "unread"))
    fitting = Fitting(
        steps=steps, batch_size=8, learning_rate=3e-5, head_learning_rate=3e-4, negatives=4, max_length=256, seed=seed
    )
    sources = taught_mixture(data, fitting.negatives, seed)
    teacher = ColBERTModel("starter")
    train_cross_encoder(work / "unread", sources, work / "cross-encoder", fitting, teacher=teacher)
    trained = load_pair_model(LoadOptions(str(work / "cross-encoder"), dtype="float32"), "cpu")
    starter.write_weights(starter.CROSS_ENCODER, trained[0].model, trained[1].state_dict(), RANK)


if __name__ == "__main__":
    app()
