"""`ColBERTModel`: token vectors, MaxSim scores and explanations of one ColBERT checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rerank_integrations.core.checks import require_texts, seconds, whole_number
from rerank_integrations.core.explanations import Explanation, TokenMatch
from rerank_integrations.core.maxsim import Floats, maxsim_many
from rerank_integrations.core.models.checkpoints.files import fingerprint
from rerank_integrations.core.models.checkpoints.options import LoadOptions, portable
from rerank_integrations.core.models.lengths import UNLIMITED, TruncationNotice, length_remedy, token_budget_batches
from rerank_integrations.core.models.pool import Share
from rerank_integrations.core.types import TokenEncoder
from rerank_integrations.errors import InvalidInputError


class ColBERTModel:
    """A late-interaction model; constructing one loads nothing, the first use does.

    Every instance of equal name, revision, device, dtype and backend shares one loaded copy. Any number of
    threads may use it.

    Parameters
    ----------
    name_or_path
        A hub name or a local directory, in Stanford ColBERT, PyLate or sentence-transformers multi-vector format;
        ``"starter"`` for the model that needs no hub (extra ``[starter]``).
    device
        A torch device; by default CUDA if there is one, else the CPU.
    dtype
        ``"auto"`` (bfloat16 where the processor computes in it, else float32), ``"float32"``, ``"bfloat16"`` or
        ``"float16"``. The graph backends have no ``"float16"`` but ``"int8"``: 8-bit weights, and activations rounded
        to 8 bits as they come. ONNX Runtime has no ``"bfloat16"`` either; its ``"auto"`` is float32.
    backend
        ``"torch"``; or, on a CPU, ``"onnx"`` (extra ``[onnx]``) or ``"openvino"`` (extra ``[openvino]``): the encoder
        as a graph, converted at the first use and kept in the cache folder (docs/how-to/backends.md).
    batch_size
        A batch holds at most ``batch_size * 256`` tokens, padding included; on a CPU at most 1,024, which is faster.
    idle_timeout
        In seconds. After so long without a call the loaded copy is dropped, and the next use loads it again; ``None``:
        never. Of instances that share a copy the longest counts.
    query_length, document_length
        In tokens, markers included; by default the checkpoint's own. Longer texts are cut, with one
        `TruncationWarning` an instance for queries and one for documents.
    revision, cache_folder, local_files_only, token, trust_remote_code, model_kwargs
        Passed to sentence-transformers.

    Raises
    ------
    InvalidInputError
        At once, for an argument of a wrong kind; at first use, for a `device` that torch cannot use here.
    CheckpointError
        At first use: no such checkpoint, a plain encoder without a trained projection, no padding token, an encoder
        that does not convert to a graph.
    MissingExtraError
        At first use, if the library of `backend` is not installed.
    InsufficientMemoryError
        At first use, if the model does not fit into the memory that is left.

    Warns
    -----
    FidelityWarning
        At first use, if the graph of `backend` strays from torch on this processor, so that something slower computes.

    References
    ----------
    Santhanam et al., ColBERTv2, NAACL 2022, arXiv:2112.01488.
    """

    def __init__(
        self,
        name_or_path: str | Path = "colbert-ir/colbertv2.0",
        *,
        device: str | None = None,
        dtype: str = "auto",
        backend: str = "torch",
        batch_size: int = 32,
        idle_timeout: float | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
        revision: str | None = None,
        cache_folder: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        trust_remote_code: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._load_options = LoadOptions(
            str(name_or_path) if isinstance(name_or_path, Path) else name_or_path,
            device=device,
            dtype=dtype,
            backend=backend,
            revision=revision,
            cache_folder=cache_folder,
            local_files_only=local_files_only,
            token=token,
            trust_remote_code=trust_remote_code,
            model_kwargs=model_kwargs,
        )
        self._batch_size = whole_number(batch_size, "batch_size", 1)
        self._lengths = {
            "query": None if query_length is None else whole_number(query_length, "query_length", 4),
            "document": None if document_length is None else whole_number(document_length, "document_length", 4),
        }
        self._notice = TruncationNotice()
        self._idle_timeout = None if idle_timeout is None else seconds(idle_timeout, "idle_timeout")
        self._fingerprint: str | None = None
        self._share = Share("colbert", self._load_options, _load, self._idle_timeout)

    def __repr__(self) -> str:
        return f"ColBERTModel({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(ColBERTModel, **portable(self.options())), ()

    @property
    def name(self) -> str:
        """The name or path that was given."""
        return self._load_options.name_or_path

    @property
    def device(self) -> str:
        """The torch device it runs on: as given, or CUDA where there is one, else the CPU."""
        return self._load_options.resolved_device()

    def options(self) -> dict[str, Any]:
        """Return the constructor arguments that differ from the defaults; never the access token."""
        given = {
            **self._load_options.arguments(),
            "batch_size": self._batch_size,
            "idle_timeout": self._idle_timeout,
            "query_length": self._lengths["query"],
            "document_length": self._lengths["document"],
        }
        return {key: value for key, value in given.items() if value != _DEFAULTS.get(key) or key == "name_or_path"}

    @property
    def dim(self) -> int:
        """The length of a token vector; loads the model."""
        with self._share.loaded() as loaded:
            return int(loaded.dim)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the checkpoint's files; two models with the same one share a vector space.

        Of a local directory it reads the files only; a model on the hub is loaded, since its files may not be here yet.
        """
        if self._fingerprint is None:
            if not self._load_options.is_local:
                with self._share.loaded():
                    pass
            self._fingerprint = fingerprint(self._load_options, "colbert")
        return self._fingerprint

    @property
    def graph(self) -> Path | None:
        """The folder of the converted encoder; loads the model.

        ``None`` with ``backend="torch"``, and where the graph strays from torch on this processor and is not used.
        """
        with self._share.loaded() as loaded:
            path: Path | None = loaded.graph
        return path

    def unload(self) -> None:
        """Drop the loaded copy, for every instance that shares it; the next use loads it again.

        Calls in flight finish on it; its memory is given back to the operating system once they have.
        """
        self._share.unload()

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        """Encode queries, with the checkpoint's marker and, where it has one, its expansion by ``[MASK]``.

        Returns
        -------
        list of numpy.ndarray
            Float32, unit rows, *Shape:* (tokens, dim), one a text.
        """
        return self._encode(texts, "query", show_progress=False)

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        """Encode passages, without the tokens that the checkpoint skips (punctuation).

        Returns
        -------
        list of numpy.ndarray
            Float32, unit rows, *Shape:* (tokens, dim), one a text.
        """
        return self._encode(texts, "document", show_progress=show_progress)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the MaxSim of `query` and each text, summed over the query's tokens; higher is better."""
        passages = self.encode_documents(texts)
        return maxsim_many(self.encode_queries([query])[0], passages) if passages else []

    def cuts_queries(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each query, whether it is longer than the model reads."""
        require_texts(texts, "query")
        if not texts:
            return []
        with self._share.loaded() as loaded:
            limit = loaded.limit("query", self._lengths["query"])
            return [count > limit for count in loaded.count_tokens(list(texts), "query")]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return each document's length in tokens, markers included, before any cut."""
        require_texts(texts)
        if not texts:
            return []
        with self._share.loaded() as loaded:
            return list(loaded.count_tokens(list(texts), "document"))

    def document_limit(self, length: int | None = None) -> int:
        """Return how many tokens of a document are read, markers included, by a model of that ``document_length``."""
        with self._share.loaded() as loaded:
            return int(loaded.limit("document", length))

    def token_spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Return the character span of each token of each text, however long; markers are left out."""
        require_texts(texts)
        if not texts:
            return []
        with self._share.loaded() as loaded:
            return list(loaded.spans(list(texts)))

    def explain(self, query: str, text: str) -> Explanation:
        """Return, for each query token that stands in the query, the text token it matched best.

        Markers and ``[MASK]`` expansion of the query are left out, so the matches sum to less than the score.
        """
        require_texts([query, text])
        with self._share.loaded() as loaded:
            asked = loaded.encode_with_spans(query, "query", loaded.limit("query", self._lengths["query"]))
            read = loaded.encode_with_spans(text, "document", loaded.limit("document", self._lengths["document"]))
        matches: tuple[TokenMatch, ...] = ()
        if len(read.vectors):
            similarities = asked.vectors @ read.vectors.T
            matches = tuple(
                TokenMatch(
                    asked.tokens[row],
                    read.tokens[column],
                    float(similarities[row, column]),
                    *read.spans[column],
                    *asked.spans[row],
                )
                for row, column in enumerate(similarities.argmax(axis=1))
                if asked.spans[row] != (0, 0)
            )
        score = maxsim_many(asked.vectors, [read.vectors])[0]
        return Explanation(query, text, self.name, score, matches, read.read_to, asked.read_to)

    def _encode(self, texts: Sequence[str], task: str, *, show_progress: bool) -> list[Floats]:
        require_texts(texts)
        # Equal texts once: less work, and vectors equal to the last bit.
        unique = list(dict.fromkeys(texts))
        if not unique:
            return []
        with self._share.loaded() as loaded:
            vectors = self._encode_unique(loaded, unique, task, show_progress)
        return [vectors[text] for text in texts]

    def _encode_unique(self, loaded: Any, texts: list[str], task: str, show_progress: bool) -> dict[str, Floats]:
        limit = loaded.limit(task, self._lengths[task])
        counts = loaded.count_tokens(texts, task)
        kind = "queries" if task == "query" else "documents"
        most = loaded.limit(task, UNLIMITED)
        remedy = length_remedy(f"{task}_length", limit, most, "split the text to have all of it read")
        self._notice.check(kind, counts, limit, remedy)
        read = [min(count, limit) for count in counts]
        places = token_budget_batches(read, self._batch_size, self.device, loaded.side_by_side(task))
        batches = [[texts[place] for place in batch] for batch in places]
        vectors: dict[str, Floats] = {}
        with tqdm(total=len(texts), desc=f"encoding {kind}", unit="text", disable=not show_progress) as bar:
            for batch, encoded in zip(batches, loaded.encode(batches, task, limit), strict=True):
                vectors.update(zip(batch, encoded, strict=True))
                bar.update(len(batch))
        return vectors


def _load(options: LoadOptions) -> Any:
    from rerank_integrations.core.models.loaded_colbert import LoadedEncoder

    return LoadedEncoder(options)


_DEFAULTS: dict[str, Any] = {
    "dtype": "auto",
    "backend": "torch",
    "batch_size": 32,
    "local_files_only": False,
    "trust_remote_code": False,
}


def as_colbert_model(model: str | Path | TokenEncoder) -> Any:
    """Return `model` itself, or a `ColBERTModel` of that name or path.

    Raises
    ------
    InvalidInputError
        If it is neither.
    """
    if isinstance(model, str | Path):
        return ColBERTModel(model)
    # The class first: before Python 3.12 the check of a protocol reads its properties, which would load the model.
    if isinstance(model, ColBERTModel) or isinstance(model, TokenEncoder):  # noqa: SIM101
        return model
    raise InvalidInputError(f"model is of type {type(model).__name__}; expected a name, a path or a ColBERTModel")
