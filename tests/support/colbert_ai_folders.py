"""Index folders in colbert-ai's format, made by hand with torch.save and json.dump."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

DIM = 32
NBITS = 2
CENTROIDS = 6
CHUNKS = ([3, 2, 4], [1, 5])
TEXTS = [f"text of passage {pid}" for pid in range(5)]


def arrays() -> dict[str, Any]:
    """Return the arrays that `write_folder` stores, by file name; deterministic."""
    rng = np.random.default_rng(7)
    stored: dict[str, Any] = {
        "centroids.pt": torch.from_numpy(rng.standard_normal((CENTROIDS, DIM)).astype(np.float16)),
        "buckets.pt": (torch.tensor([-0.1, 0.0, 0.1]), torch.tensor([-0.2, -0.05, 0.05, 0.2])),
        "avg_residual.pt": torch.tensor([0.125]),
    }
    for number, lengths in enumerate(CHUNKS):
        codes = rng.integers(0, CENTROIDS, sum(lengths), dtype=np.int32)
        residuals = rng.integers(0, 256, (sum(lengths), DIM * NBITS // 8), dtype=np.uint8)
        stored[f"{number}.codes.pt"] = torch.from_numpy(codes)
        stored[f"{number}.residuals.pt"] = torch.from_numpy(residuals)
    return stored


def write_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    for name, value in arrays().items():
        torch.save(value, path / name)
    passages = tokens = 0
    for number, lengths in enumerate(CHUNKS):
        write_json(path / f"doclens.{number}.json", lengths)
        chunk = {"passage_offset": passages, "num_passages": len(lengths), "num_embeddings": sum(lengths)}
        write_json(path / f"{number}.metadata.json", {**chunk, "embedding_offset": tokens})
        passages += len(lengths)
        tokens += sum(lengths)
    metadata = {
        "config": {"dim": DIM, "nbits": NBITS, "checkpoint": "some/model", "collection": "/etc/passwd"},
        "num_chunks": len(CHUNKS),
        "num_partitions": CENTROIDS,
        "num_embeddings": tokens,
        "avg_doclen": tokens / passages,
    }
    write_json(path / "metadata.json", metadata)
    write_json(path / "collection.json", TEXTS)
    return path


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON object; a value of ``...`` removes the key."""
    found = json.loads(path.read_text())
    write_json(path, {key: value for key, value in {**found, **values}.items() if value is not ...})


def decompress(codes: NDArray[Any], residuals: NDArray[Any], centroids: NDArray[Any], book: NDArray[Any]) -> Any:
    """Return unit vectors, decompressed one byte of one token at a time."""
    rows = []
    for code, packed in zip(codes, residuals, strict=True):
        row = centroids[code] + np.concatenate([book[byte] for byte in packed])
        rows.append(row / np.linalg.norm(row))
    return np.array(rows, np.float32)
