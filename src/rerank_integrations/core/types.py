"""The values that cross every border of the package, `Passage` and `Hit`, and what a model of the user must offer."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict, runtime_checkable

from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from rerank_integrations.core.maxsim import Floats


# A user's own values. Typed as `Any`, because a user compares and adds them: ``hit.metadata["year"] > 2000``.
Metadata: TypeAlias = "Mapping[str, Any]"
# A Mongo-style condition on metadata: {"year": {"$gte": 2023}}.
Where: TypeAlias = "Mapping[str, Any]"
ScoreScale: TypeAlias = Literal["maxsim_sum", "maxsim_mean", "logit", "probability", "own"]
CrossEncoderScale: TypeAlias = Literal["logit", "probability", "own"]
SearchType: TypeAlias = Literal["colbert", "bm25", "hybrid"]
VectorSource: TypeAlias = Literal["stored", "cached", "encoded"]


_NO_METADATA: Metadata = MappingProxyType({})


class RankingNote(TypedDict, total=False):
    """Keys that say how a score came about, by docs/reference/notes.md; keys that do not apply are absent."""

    search_type: SearchType
    colbert_score: float
    bm25_score: float
    bm25_weight: float
    retrieval_score: float
    retrieval_rank: int
    score_scale: ScoreScale
    vectors_from: VectorSource
    pool_factor: float
    window_start: int
    window_end: int
    truncated: bool
    query_truncated: bool
    rerank_stage: str
    rerank_scores: dict[str, float]
    rerank_stopped: str


@dataclass(frozen=True, init=False)
class Passage:
    """A text to index or to rank.

    Parameters
    ----------
    id
        Unique within an index; a non-empty string. ``None``, which documents of loaders and splitters have, stands for
        an id made of text and metadata (32 hexadecimal digits of their SHA-256): equal texts of two sources are two
        passages, and the same passage again is the same one.
    text
        The text that is encoded and scored. May be empty.
    metadata
        For filters and for the caller. An index stores it if its keys are strings, and its values strings, finite
        numbers, bools, ``None``, and lists and dictionaries of them.

    Raises
    ------
    InvalidInputError
        If a field has the wrong type, or `id` is empty.
    """

    id: str
    text: str
    metadata: Metadata = field(default_factory=dict)

    def __init__(self, id: str | None, text: str, metadata: Metadata = _NO_METADATA) -> None:
        if id is not None and (not isinstance(id, str) or not id):
            raise InvalidInputError(f"passage id is {id!r}; expected a non-empty string, or None")
        if not isinstance(text, str):
            raise InvalidInputError(f"text of passage {id!r} is of type {type(text).__name__}; expected str")
        if not isinstance(metadata, Mapping):
            raise InvalidInputError(
                f"metadata of passage {id!r} is of type {type(metadata).__name__}; expected a mapping"
            )
        copied = dict(metadata)
        # A frozen dataclass sets its fields so.
        object.__setattr__(self, "id", _content_id(text, copied) if id is None else id)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "metadata", copied)


@dataclass(frozen=True)
class Hit:
    """One result of a search or of a reranking.

    Parameters
    ----------
    id, text, metadata
        The passage's own.
    score
        Higher is better. MaxSim (summed over the query's tokens), BM25, the weighted sum of both on a common scale
        (hybrid, at most 1), or the cross-encoder's score.
    rank
        1 for the best.
    note
        After a reranking, and after a search by BM25 or both: how the score came about, by the keys of
        docs/reference/notes.md. JSON-serialisable.
    """

    id: str
    score: float
    rank: int
    text: str
    metadata: Metadata = field(default_factory=dict)
    note: RankingNote = field(default_factory=RankingNote)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes; an empty note is omitted."""
        fields = asdict(self)
        if not self.note:
            del fields["note"]
        return fields


PassageLike: TypeAlias = "str | Passage | Hit | Mapping[str, Any]"
"""A passage in any form that is accepted: its text, or a mapping with ``text`` and optional ``id`` and ``metadata``."""


class Scorer(Protocol):
    """Protocol of a scorer: anything that scores texts against a query."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        """Return one score per text, in the order of `texts`; higher is better."""
        ...


class ListwiseScorer(Protocol):
    """Protocol of a scorer whose scores depend on the set of texts, as of a model that reads them all in one prompt.

    All candidates of a query come in one call, once each, in the order given: never in batches, never with those of
    another query, and no score is remembered for the next call. Scores of one call compare with each other, those of
    two calls need not. Windows are refused, since a text would be several candidates.
    """

    @property
    def max_candidates(self) -> int | None:
        """The most texts of one call; more of them are an `InvalidInputError`. ``None``: any number.

        A scorer that divides many texts into blocks by a rule of its own says ``None``.
        """
        ...

    def score_list(self, query: str, texts: list[str]) -> list[float]:
        """Return one score per text, in the order of `texts`; higher is better."""
        ...


@runtime_checkable
class TokenEncoder(Protocol):
    """Protocol of the model that an index encodes with; `ColBERTModel` follows it."""

    @property
    def name(self) -> str:
        """The name or path from which it is loaded again."""
        ...

    @property
    def dim(self) -> int:
        """The length of a token vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """The identity of the vector space."""
        ...

    def options(self) -> dict[str, Any]:
        """Return the JSON-serialisable constructor arguments."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        """Return one array per text, float32 or convertible to it, *Shape:* (tokens, dim)."""
        ...

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        """Return one array per text, float32 or convertible to it, *Shape:* (tokens, dim)."""
        ...


def to_passage(item: PassageLike) -> Passage:
    """Make a `Passage` from a plain string, a mapping, a `Hit` or a `Passage`.

    A string, or a mapping without ``id``, gets an id made from its text and its metadata, as a `Passage` with ``None``
    does. So the same text added twice is one passage.

    Raises
    ------
    InvalidInputError
        If `item` is of another type, or a mapping has no ``text`` or keys that are not known.
    """
    if isinstance(item, Passage):
        return item
    if isinstance(item, Hit):
        return Passage(item.id, item.text, item.metadata)
    if isinstance(item, str):
        return Passage(None, item)
    if isinstance(item, Mapping):
        return _from_mapping(item)
    raise InvalidInputError(f"a passage of type {type(item).__name__}; expected str, Passage or a mapping with 'text'")


def iter_passages(passages: Iterable[PassageLike]) -> Iterator[PassageLike]:
    """Iterate over `passages`.

    Raises
    ------
    InvalidInputError
        If it is a single passage, whose characters or keys would be taken for passages, or not iterable.
    """
    if isinstance(passages, str | bytes | Mapping | Passage | Hit) or not isinstance(passages, Iterable):
        raise InvalidInputError(f"passages is one {type(passages).__name__}; expected an iterable of passages")
    return iter(passages)


def _from_mapping(item: Mapping[str, Any]) -> Passage:
    unknown = set(item) - {"id", "text", "metadata"}
    if unknown or "text" not in item:
        raise InvalidInputError(
            f"a passage mapping has the keys {sorted(map(str, item))}; "
            "expected 'text' and, if wanted, 'id' and 'metadata'"
        )
    text = item["text"]
    if not isinstance(text, str):
        raise InvalidInputError(f"the text of a passage is of type {type(text).__name__}; expected str")
    metadata = item.get("metadata")
    return Passage(item.get("id"), text, {} if metadata is None else metadata)


def _content_id(text: str, metadata: Metadata) -> str:
    content = text.encode("utf-8", "surrogatepass")
    if metadata:
        # What JSON cannot write is refused when it is stored, and a reranking needs no id that lasts.
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            written = json.dumps(metadata, sort_keys=True, ensure_ascii=True)
            # No text has this byte in UTF-8, so no text and metadata run into another text.
            content += b"\xff" + written.encode("ascii")
    return hashlib.sha256(content).hexdigest()[:32]
