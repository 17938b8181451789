"""Compute the projection that training starts from: a PCA of a base's token vectors.

    python training/fit_projection.py CORPUS.jsonl.gz [CORPUS ...] [--passages 8000] [--seed 0] [--output FILE]
    python training/fit_projection.py --base starter-multilingual CORPUS.jsonl.gz [CORPUS ...]

That of all-MiniLM-L6-v2 is uncentred and whitened; the committed file was fitted on 8,000 glosses of WordNet. That of
multilingual-e5-small, whose token vectors have a mean cosine of .68, subtracts the mean token vector first. Any text of
broad vocabulary is suitable; it is needed only here, never by the package. Token vectors are first scaled to unit
length, as in MaxSim; markers and punctuation are omitted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from rerank_integrations import starter

UNTRAINED = {
    starter.ENGLISH: Path(__file__).with_name("untrained.safetensors"),
    starter.MULTILINGUAL: Path(__file__).with_name("untrained_multilingual.safetensors"),
}
DIM = 128
BATCH = 64


def read_texts(path: Path, count: int, seed: int) -> list[str]:
    """Return `count` texts (title and text) of a BEIR corpus, drawn with `seed`."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [f"{row.get('title', '')} {row['text']}".strip() for row in rows]
    return random.Random(seed).sample(texts, min(count, len(texts)))


def token_vectors(texts: list[str]) -> Iterator[NDArray[np.float32]]:
    """Yield the unit token vectors of each batch, *Shape:* (tokens, 384)."""
    base = str(starter.base_path())
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModel.from_pretrained(base, dtype=torch.float32).eval()
    skipped = tokenizer.convert_tokens_to_ids([*string.punctuation, "[CLS]", "[SEP]", "[PAD]"])
    ordered = sorted(texts, key=len)
    for start in tqdm(range(0, len(ordered), BATCH), desc="encoding", unit="batch"):
        batch = tokenizer(
            ordered[start : start + BATCH], padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with torch.inference_mode():
            vectors = model(**batch).last_hidden_state
        rows = vectors[~torch.isin(batch["input_ids"], torch.tensor(skipped))]
        yield torch.nn.functional.normalize(rows, dim=-1).numpy()


def fit(texts: list[str]) -> NDArray[np.float32]:
    """Return the `DIM` directions of greatest energy, scaled to equal energy, *Shape:* (128, 384).

    The few directions that all tokens share have most of the energy and distinguish tokens least, hence the scaling.
    """
    gram = np.zeros((384, 384))
    for vectors in token_vectors(texts):
        gram += vectors.T.astype(np.float64) @ vectors
    energies, directions = (part[..., ::-1][..., :DIM] for part in np.linalg.eigh(gram))
    # An eigenvector's sign is arbitrary. It is fixed so that the file does not depend on the linear algebra library.
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(DIM)])
    projection: NDArray[np.float32] = (directions * signs * np.sqrt(energies[0] / energies)).T.astype(np.float32)
    return projection


def main() -> None:
    """Fit on the texts that the command line names, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--passages", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=UNTRAINED)
    arguments = parser.parse_args()
    projection = fit(read_texts(arguments.corpus, arguments.passages, arguments.seed))
    save_file({"head.linear.weight": torch.from_numpy(projection.copy()).half()}, arguments.output)
    print(f"{arguments.output}: {projection.shape}")


if __name__ == "__main__":
    main()
