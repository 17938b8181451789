"""Encoders of passages and queries, and vectors that are made once, stored, and handed out again."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.concurrency.cores import lane_for, on_compute_thread
from rerank_integrations.core.index.storage.arrays import map_array
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models import TokenEncoder
from rerank_integrations.core.models.checkpoints.options import STARTER, resolve_device, resolve_dtype
from rerank_integrations.core.types import Passage

Vectors: TypeAlias = NDArray[np.float16] | NDArray[np.float32]
_ROWS, _LENGTHS, _FACTS = "rows", "lengths.npy", "facts.json"
# Passages between two writes, whose vectors memory must hold.
_PASSAGES_PER_WRITE = 1024


@dataclass(frozen=True)
class PassageVectors:
    """Vectors of passages, in the order of the passages.

    Parameters
    ----------
    vectors
        Mapped from a file. *Shape:* (tokens, dim) per passage, float16, for a ColBERT model; (1, dim), float32, for a
        bi-encoder.
    seconds
        How long encoding took.
    """

    vectors: list[Vectors]
    seconds: float


def are_stored(folder: Path, identity: str) -> bool:
    """Return whether a folder holds everything that `store_vectors` writes for a model of this identity."""
    facts = folder / _FACTS
    return facts.is_file() and json.loads(facts.read_text(encoding="utf-8"))["model"] == identity


def store_vectors(
    folder: Path,
    identity: str,
    encode: Callable[[list[str]], Sequence[Vectors]],
    passages: Sequence[Passage],
    dtype: type[np.float16] | type[np.float32],
) -> None:
    """Encode passages into the files of a folder, unless it holds the vectors of this model already.

    Parameters
    ----------
    identity
        Distinguishes the model from others.
    encode
        Returns one array per text, *Shape:* (rows, dim).
    """
    if are_stored(folder, identity):
        return
    facts = folder / _FACTS
    folder.mkdir(parents=True, exist_ok=True)
    facts.unlink(missing_ok=True)
    start, lengths, dim = time.perf_counter(), [], 0
    with (folder / _ROWS).open("wb") as stream, tqdm(total=len(passages), desc="encoding", disable=None) as bar:
        for first in range(0, len(passages), _PASSAGES_PER_WRITE):
            encoded = encode([passage.text for passage in passages[first : first + _PASSAGES_PER_WRITE]])
            lengths += [len(vectors) for vectors in encoded]
            dim = encoded[0].shape[1]
            stream.write(np.concatenate(encoded).astype(dtype).tobytes())
            bar.update(len(encoded))
    np.save(folder / _LENGTHS, np.array(lengths, dtype=np.int64))
    seconds = time.perf_counter() - start
    record = {"model": identity, "dim": dim, "dtype": np.dtype(dtype).name, "seconds": seconds}
    temporary = facts.with_name(f".{_FACTS}")
    temporary.write_text(json.dumps(record), encoding="utf-8")
    # Last, since it says that the other files are complete.
    temporary.replace(facts)


def open_vectors(folder: Path) -> PassageVectors:
    """Map the vectors that `store_vectors` wrote."""
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    lengths = map_array(folder / _LENGTHS, np.int64, (None,))
    if not lengths.sum():
        return PassageVectors([np.zeros((0, facts["dim"]), dtype=facts["dtype"]) for _ in lengths], facts["seconds"])
    rows = np.memmap(folder / _ROWS, dtype=facts["dtype"], mode="r").reshape(-1, facts["dim"])
    return PassageVectors(np.split(rows, np.cumsum(lengths)[:-1]), facts["seconds"])


def full_name(model: str) -> str:
    """Return the name of `model` on the hub, with the organisation that SentenceTransformer adds if it has none."""
    if model == STARTER or "/" in model or Path(model).exists():
        return model
    from sentence_transformers.util.misc import ORIGINAL_TRANSFORMER_MODELS

    return model if model.lower() in ORIGINAL_TRANSFORMER_MODELS else f"sentence-transformers/{model}"


class PooledEncoder:
    """Any model that `sentence_transformers.SentenceTransformer` loads, or ``starter``: all-MiniLM-L6-v2.

    Parameters
    ----------
    show_progress
        Whether `encode` shows a progress bar; by default only on a terminal.
    """

    def __init__(self, model: str, *, show_progress: bool | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        from rerank_integrations.starter import base_path

        # The same precision as that of the other models on this machine.
        dtype = resolve_dtype("auto", resolve_device(None))
        name = str(base_path()) if model == STARTER else full_name(model)
        self._model = SentenceTransformer(name, model_kwargs={"dtype": dtype})
        self._show_progress = sys.stderr.isatty() if show_progress is None else show_progress
        self._transformer = getattr(self._model[0], "auto_model", None)
        if self._transformer is not None:
            # A copy: truncation and padding are state of a fast tokenizer, and several threads count.
            self._counting_tokenizer = copy.deepcopy(self._model.tokenizer)

    def encode(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Return one unit vector per text: float32, *Shape:* (1, dim)."""
        many = len(texts) > 1 and self._show_progress
        vectors = self._model.encode(texts, show_progress_bar=many).astype(np.float32)
        # In float32: in bfloat16 a vector is of length 1 only within 0.4 %.
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return list(vectors[:, None, :])

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Encode one text as `encode` does, on the thread that a ColBERT model would use for it."""
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
    """A query that carries its vectors."""

    vectors: Floats


def encoded(query: str, model: TokenEncoder) -> Encoded:
    """Encode a query for a model of `given_queries`."""
    text = Encoded(query)
    text.vectors = model.encode_queries([query])[0]
    return text


def given_queries(model: TokenEncoder) -> TokenEncoder:
    """Return `model` as an encoder that takes the vectors of queries from the queries, which must be `Encoded`."""
    return _EncodedQueries(model)


def given_vectors(model: TokenEncoder, passages: Mapping[str, Vectors]) -> TokenEncoder:
    """Return `model` as an encoder that looks up the vectors of passages by their text.

    Parameters
    ----------
    model
        The model that made the vectors, or `given_queries` of it.
    passages
        Vectors by text, *Shape:* (tokens, dim) each. An index stores float16 in any case.
    """
    return _StoredPassages(model, passages)


class _Wrapper:
    # Every member is written out: from Python 3.12 on, the check of a protocol does not see what __getattr__ finds.
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

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        return self._model.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        return self._model.encode_documents(texts, show_progress)


class _EncodedQueries(_Wrapper):
    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        return [text.vectors for text in cast("Sequence[Encoded]", texts)]


class _StoredPassages(_Wrapper):
    def __init__(self, model: TokenEncoder, passages: Mapping[str, Vectors]) -> None:
        super().__init__(model)
        self._passages = passages

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        return [self._passages[text].astype(np.float32) for text in texts]
