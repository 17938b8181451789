"""Small files of the format that `rerank_integrations.starter.packed_model` reads, written by an independent writer."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PIECES = ["<s>", "<pad>", "</s>", "<unk>", *"▁abcdeéfox中文字", "▁a", "ab", "▁abc", "中文", "▁fox", "de", "<mask>"]
REPLACEMENTS = {"\t": " ", "\u3000": " ", "Ａ": "a", "\u00ad": "", "ﬀ": "ff", "½": "abc", "𝐛": "b"}
WIDTH, LAYERS, HEADS, INNER, POSITIONS, TYPES = 64, 2, 4, 96, 40, 2
VOCABULARY = len(PIECES) + 3


@dataclass
class PackedParts:
    """A file in parts, which a test may change before it is written; `tensors` are the values that a reader returns."""

    shape: list[int] = field(default_factory=lambda: [WIDTH, LAYERS, HEADS, INNER, VOCABULARY, POSITIONS, TYPES])
    epsilon: float = 1e-12
    block: int = 32
    version: int = 1
    markers: tuple[int, int, int, int] = (0, 2, 1, 3)
    pieces: list[str] = field(default_factory=lambda: list(PIECES))
    scores: list[float] = field(default_factory=list)
    tensors: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    packed: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def content(self) -> bytes:
        """Return the bytes of the file."""
        texts = [piece.encode() for piece in self.pieces]
        begins = np.cumsum([0, *map(len, texts)]).astype("<u4")
        replaced = b"".join(
            struct.pack(f"<IB{len(text)}I", ord(key), len(text), *map(ord, text)) for key, text in REPLACEMENTS.items()
        )
        head = b"E5S1" + struct.pack("<I7ifi", self.version, *self.shape, self.epsilon, self.block)
        head += struct.pack("<5iQ", len(texts), *self.markers, begins[-1]) + begins.tobytes()
        head += np.array(self.scores, "<f4").tobytes() + b"".join(texts)
        head += struct.pack("<2I", len(REPLACEMENTS), len(replaced)) + replaced + struct.pack("<i", len(self.packed))
        at = len(head) + sum(2 + len(name) + 21 for name in self.packed)
        for name, (kind, data) in self.packed.items():
            head += struct.pack("<H", len(name)) + name.encode()
            head += struct.pack("<BIQQ", kind, self.tensors[name].size, at, len(data))
            at += len(data)
        return head + b"".join(data for _, data in self.packed.values())


def packed_parts(seed: int = 0) -> PackedParts:
    """Return a whole file with random weights."""
    draw = np.random.default_rng(seed)
    parts = PackedParts()
    # Longer pieces are likelier than their parts; markers have a score of 0.
    parts.scores = [
        0.0 if text.startswith("<") else -9.0 / len(text) - number / 100 for number, text in enumerate(PIECES)
    ]
    vectors = {"emb.pos": (POSITIONS, WIDTH), "emb.type": (TYPES, WIDTH), "emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
    matrices = {"emb.word": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        for name, rows, columns in (
            *((name, WIDTH, WIDTH) for name in ("q", "k", "v", "ao")),
            ("fi", INNER, WIDTH),
            ("fo", WIDTH, INNER),
        ):
            matrices[f"l{layer}.{name}.w"] = (rows, columns)
            vectors[f"l{layer}.{name}.b"] = (rows,)
        for name in ("aln", "oln"):
            vectors[f"l{layer}.{name}.w"] = vectors[f"l{layer}.{name}.b"] = (WIDTH,)
    for name, shape in vectors.items():
        values = draw.normal(1.0 if name.endswith("ln.w") else 0.0, 0.1, shape).astype("<f4")
        parts.tensors[name], parts.packed[name] = values, (0, values.tobytes())
    for name, shape in matrices.items():
        scales = draw.uniform(0.01, 0.03, (*shape[:-1], shape[-1] // 32)).astype("<f2")
        numbers = draw.integers(0, 16, (*shape[:-1], shape[-1] // 32, 32), dtype=np.uint8)
        parts.packed[name] = (1, _blocks(scales, numbers))
        parts.tensors[name] = ((numbers.astype(np.float64) - 8) * scales[..., None].astype(np.float64)).reshape(shape)
    return parts


def write_packed_model(path: Path, seed: int = 0) -> PackedParts:
    """Write a whole file with random weights, and return its parts."""
    parts = packed_parts(seed)
    path.write_bytes(parts.content())
    return parts


def _blocks(scales: NDArray[np.float16], numbers: NDArray[np.uint8]) -> bytes:
    """Pack number by number, as the format's description says it."""
    content = bytearray()
    for scale, block in zip(scales.reshape(-1), numbers.reshape(-1, 32), strict=True):
        content += struct.pack("<e", float(scale))
        content += bytes(int(block[j]) | int(block[j + 16]) << 4 for j in range(16))
    return bytes(content)
