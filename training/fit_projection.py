"""Compute the projection that training starts from: a PCA of a base's token vectors.

    python training/fit_projection.py CORPUS.jsonl.gz [CORPUS ...] [--passages 8000] [--seed 0] [--output FILE]
    python training/fit_projection.py --base starter-multilingual CORPUS.jsonl.gz [CORPUS ...]

That of all-MiniLM-L6-v2 is uncentred and whitened; the committed file was fitted on 8,000 glosses of WordNet. That of
multilingual-e5-small, whose token vectors have a mean cosine of .68, subtracts the mean token vector first. Any text of
broad vocabulary is suitable; it is needed only here, never by the package. Where no mean is subtracted, token
vectors are first scaled to unit length, as in MaxSim. Markers and punctuation are omitted.
"""

from __future__ import annotations

import argparse
import random
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mixture import read_rows
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
# The power of energy by which directions are scaled, 0.5 being whitening, and whether the mean is subtracted.
WHITENING = {starter.ENGLISH: (0.5, False), starter.MULTILINGUAL: (0.25, True)}


def read_texts(paths: list[Path], count: int, seed: int) -> list[str]:
    """Return `count` texts, equally many of each file, drawn with `seed`.

    A file is a BEIR corpus (title and text), or pairs, whose positives are taken once each.
    """
    texts = []
    for path in paths:
        own = [row.get("positive") or f"{row.get('title', '')} {row['text']}".strip() for row in read_rows(path)]
        if len(paths) > 1:
            own = list(dict.fromkeys(own))
        texts += random.Random(seed).sample(own, min(count // len(paths), len(own)))
    return texts


def token_vectors(texts: list[str], base: str) -> Iterator[NDArray[np.float32]]:
    """Yield the token vectors of each batch, *Shape:* (tokens, 384); of unit length if no mean is subtracted."""
    folder, prompt = str(starter.base_path(base)), starter.STARTERS[base].prompts.get("document", "")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    markers = [tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token]
    skipped = tokenizer.convert_tokens_to_ids([*string.punctuation, *markers, *starter.STARTERS[base].skiplist])
    ordered = [prompt + text for text in sorted(texts, key=len)]
    for start in tqdm(range(0, len(ordered), BATCH), desc="encoding", unit="batch"):
        batch = tokenizer(
            ordered[start : start + BATCH], padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with torch.inference_mode():
            vectors = model(**batch).last_hidden_state
        rows = vectors[~torch.isin(batch["input_ids"], torch.tensor(skipped))]
        # A mean that is subtracted must be that of the vectors as they reach the projection.
        yield (rows if WHITENING[base][1] else torch.nn.functional.normalize(rows, dim=-1)).numpy()


def fit(texts: list[str], base: str = starter.ENGLISH) -> dict[str, NDArray[np.float32]]:
    """Return ``weight``, the `DIM` directions of greatest energy, *Shape:* (128, 384), and for some bases ``bias``.

    The few directions that all tokens share have most of the energy and distinguish tokens least. So they are scaled to
    equal energy, or part of the way, and the mean vector is subtracted where it is long.
    """
    power, centred = WHITENING[base]
    gram, total, count = np.zeros((384, 384)), np.zeros(384), 0
    for vectors in token_vectors(texts, base):
        gram += vectors.T.astype(np.float64) @ vectors
        total += vectors.sum(axis=0, dtype=np.float64)
        count += len(vectors)
    mean = total / count
    if centred:
        gram -= count * np.outer(mean, mean)
    energies, directions = (part[..., ::-1][..., :DIM] for part in np.linalg.eigh(gram))
    # An eigenvector's sign is arbitrary. It is fixed so that the file does not depend on the linear algebra library.
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(DIM)])
    projection: NDArray[np.float32] = (directions * signs * (energies[0] / energies) ** power).T.astype(np.float32)
    if not centred:
        return {"weight": projection}
    return {"weight": projection, "bias": (-projection @ mean).astype(np.float32)}


def main() -> None:
    """Fit on the texts that the command line names, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--base", choices=list(starter.STARTERS), default=starter.ENGLISH)
    parser.add_argument("--passages", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    fitted = fit(read_texts(arguments.corpus, arguments.passages, arguments.seed), arguments.base)
    output = arguments.output or UNTRAINED[arguments.base]
    save_file({f"head.linear.{name}": torch.from_numpy(part.copy()).half() for name, part in fitted.items()}, output)
    print(f"{output}: {fitted['weight'].shape}")


if __name__ == "__main__":
    main()
