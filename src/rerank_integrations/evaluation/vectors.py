"""Encoders of passages and queries, and vectors that are made once, stored, and handed out again."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.concurrency.cores import lane_for, on_compute_thread
from rerank_integrations.core.index.arrays import map_array
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models import TokenEncoder
from rerank_integrations.core.models.checkpoints.options import STARTER, resolve_device, resolve_dtype
from rerank_integrations.core.types import Passage

_ROWS, _LENGTHS, _FACTS = "rows", "lengths.npy", "facts.json"
# Passages that are encoded between two writes: what memory must hold.
_AT_ONCE = 1024


@dataclass(frozen=True)
class PassageVectors:
    """Vectors of passages, in their order.

    Parameters
    ----------
    vectors
        *Shape:* (tokens, dim) each, float16 of a ColBERT's; (1, dim), float32 of a bi-encoder's. Mapped from a file.
    seconds
        What encoding them took.
    """

    vectors: list[NDArray[Any]]
    seconds: float


def are_stored(folder: Path, identity: str) -> bool:
    """Whether a folder holds all that `store_vectors` wrote for a model of this identity."""
    facts = folder / _FACTS
    return facts.is_file() and json.loads(facts.read_text(encoding="utf-8"))["model"] == identity


def store_vectors(
    folder: Path,
    identity: str,
    encode: Callable[[list[str]], Sequence[NDArray[Any]]],
    passages: Sequence[Passage],
    dtype: type[np.float16] | type[np.float32],
) -> None:
    """Encode passages into the files of a folder, unless it holds those of this model already.

    Parameters
    ----------
    identity
        Tells the model from others.
    encode
        Gives an array a text, *Shape:* (rows, dim).
    """
    if are_stored(folder, identity):
        return
    facts = folder / _FACTS
    folder.mkdir(parents=True, exist_ok=True)
    facts.unlink(missing_ok=True)
    start, lengths, dim = time.perf_counter(), [], 0
    with (folder / _ROWS).open("wb") as stream, tqdm(total=len(passages), desc="encoding", disable=None) as bar:
        for first in range(0, len(passages), _AT_ONCE):
            some = encode([passage.text for passage in passages[first : first + _AT_ONCE]])
            lengths += [len(vectors) for vectors in some]
            dim = some[0].shape[1]
            stream.write(np.concatenate(some).astype(dtype).tobytes())
            bar.update(len(some))
    np.save(folder / _LENGTHS, np.array(lengths, dtype=np.int64))
    found = {"model": identity, "dim": dim, "dtype": np.dtype(dtype).name, "seconds": time.perf_counter() - start}
    written = facts.with_name(f".{_FACTS}")
    written.write_text(json.dumps(found), encoding="utf-8")
    # Last, since it says that the others are whole.
    written.replace(facts)


def open_vectors(folder: Path) -> PassageVectors:
    """Map what `store_vectors` wrote."""
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    lengths = map_array(folder / _LENGTHS, np.int64, (None,))
    if not lengths.sum():
        return PassageVectors([np.zeros((0, facts["dim"]), dtype=facts["dtype"]) for _ in lengths], facts["seconds"])
    rows = np.memmap(folder / _ROWS, dtype=facts["dtype"], mode="r").reshape(-1, facts["dim"])
    return PassageVectors(np.split(rows, np.cumsum(lengths)[:-1]), facts["seconds"])


def full_name(model: str) -> str:
    """Return the hub's name of `model` where it is one without an organisation, as SentenceTransformer takes it."""
    if model == STARTER or "/" in model or Path(model).exists():
        return model
    from sentence_transformers.util.misc import ORIGINAL_TRANSFORMER_MODELS

    return model if model.lower() in ORIGINAL_TRANSFORMER_MODELS else f"sentence-transformers/{model}"


class PooledEncoder:
    """Any model that `sentence_transformers.SentenceTransformer` loads, or ``starter``: all-MiniLM-L6-v2."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        from rerank_integrations.starter import base_path

        # As precise as the other models of this machine.
        dtype = resolve_dtype("auto", resolve_device(None))
        name = str(base_path()) if model == STARTER else full_name(model)
        self._model = SentenceTransformer(name, model_kwargs={"dtype": dtype})
        self._transformer = getattr(self._model[0], "auto_model", None)
        if self._transformer is not None:
            # A copy: truncation and padding are state of a fast tokenizer, and several threads count.
            self._counting_tokenizer = copy.deepcopy(self._model.tokenizer)

    def encode(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Return an array a text: float32, *Shape:* (1, dim), of length 1."""
        many = len(texts) > 1 and sys.stderr.isatty()
        vectors = self._model.encode(texts, show_progress_bar=many).astype(np.float32)
        # In float32: in bfloat16 a vector is of length 1 only within 0.4 %.
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return list(vectors[:, None, :])

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Return what `encode` returns of one text, computed on the thread that a ColBERT model would compute it on."""
        return on_compute_thread(self._lane(text), lambda: self.encode([text])[0])

    def _lane(self, text: str) -> str:
        from rerank_integrations.core.models.loaded_colbert import multiplied_weights

        if self._transformer is None or self._model.device.type != "cpu":
            return "query"
        counted = self._counting_tokenizer([text], truncation=False, padding=False, verbose=False)
        tokens = len(counted["input_ids"][0])
        read = min(tokens, self._model.get_max_seq_length() or tokens)
        return lane_for("query", read * multiplied_weights(self._transformer))


class Encoded(str):
    """A query that brings its vectors along."""

    vectors: Floats


def encoded(query: str, model: TokenEncoder) -> Encoded:
    """Encode a query for a model of `given_queries` or `given_vectors`."""
    brought = Encoded(query)
    brought.vectors = model.encode_queries([query])[0]
    return brought


def given_queries(model: TokenEncoder) -> TokenEncoder:
    """Return `model`, but for its queries, which are to be `Encoded`."""
    return _GivenQueries(model)


def given_vectors(model: TokenEncoder, passages: Mapping[str, NDArray[np.float16]]) -> TokenEncoder:
    """Return `model`, but for its passages, which are found here by their text.

    Parameters
    ----------
    model
        The one that made the vectors, or `given_queries` of it.
    passages
        *Shape:* (tokens, dim) each. An index stores float16 in any case.
    """
    return _GivenVectors(model, passages)


class _Like:
    # Every name written out: from Python 3.12 on, the check of a protocol does not see what __getattr__ would find.
    def __init__(self, model: TokenEncoder) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def dim(self) -> int:
        return self._model.dim

    @property
    def fingerprint(self) -> str:
        return self._model.fingerprint

    @property
    def device(self) -> str:
        return str(getattr(self._model, "device", "cpu"))

    def options(self) -> dict[str, Any]:
        return self._model.options()

    def encode_queries(self, texts: Sequence[Any]) -> list[Floats]:
        return self._model.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        return self._model.encode_documents(texts, show_progress)


class _GivenQueries(_Like):
    def encode_queries(self, texts: Sequence[Any]) -> list[Floats]:
        return [text.vectors for text in texts]


class _GivenVectors(_Like):
    def __init__(self, model: TokenEncoder, passages: Mapping[str, NDArray[np.float16]]) -> None:
        super().__init__(model)
        self._passages = passages

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        return [self._passages[text].astype(np.float32) for text in texts]
