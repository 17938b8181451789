"""The values that cross every border of the package, `Passage` and `Hit`, and what a model of the user must offer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from rerank_integrations.core.maxsim import Floats


@dataclass(frozen=True)
class Passage:
    """A text to index or to rank.

    Parameters
    ----------
    id
        Unique within an index; a non-empty string.
    text
        What is encoded and scored. May be empty.
    metadata
        For filters and for the caller. To be stored in an index its keys must be strings, and its values strings,
        finite numbers, bools, ``None``, and lists and dictionaries of them.

    Raises
    ------
    InvalidInputError
        If a field has the wrong type, or `id` is empty.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise InvalidInputError(f"passage id is {self.id!r}; expected a non-empty string")
        if not isinstance(self.text, str):
            raise InvalidInputError(f"text of passage {self.id!r} is of type {type(self.text).__name__}; expected str")
        if not isinstance(self.metadata, Mapping):
            raise InvalidInputError(
                f"metadata of passage {self.id!r} is of type {type(self.metadata).__name__}; expected a mapping"
            )
        object.__setattr__(self, "metadata", dict(self.metadata))


@dataclass(frozen=True)
class Hit:
    """One result of a search or of a reranking.

    Parameters
    ----------
    id, text, metadata
        Those of the passage.
    score
        Higher is better. MaxSim (summed over the query's tokens) or the cross-encoder's score.
    rank
        1 for the best.
    note
        Of a reranking, how the score came about: keys and meanings in docs/reference/notes.md. JSON-serialisable.
    """

    id: str
    score: float
    rank: int
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    note: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes; without a note that says nothing."""
        fields = asdict(self)
        if not self.note:
            del fields["note"]
        return fields


PassageLike: TypeAlias = "str | Passage | Hit | Mapping[str, Any]"
"""A passage in any form that is accepted: its text, or a mapping with ``text`` and optional ``id`` and ``metadata``."""


class Scorer(Protocol):
    """Anything that scores texts against a query."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        """Return one score a text, in the order of `texts`; higher is better."""
        ...


@runtime_checkable
class TokenEncoder(Protocol):
    """What an index asks of its model; `ColBERTModel` is one."""

    @property
    def name(self) -> str:
        """The name or path that loads it again."""
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
        """Return an array per text, float32 or what converts to it, *Shape:* (tokens, dim)."""
        ...

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        """Return an array per text, float32 or what converts to it, *Shape:* (tokens, dim)."""
        ...


def to_passage(item: PassageLike) -> Passage:
    """Make a `Passage` of a plain string, a mapping, a `Hit` or a `Passage`.

    A string, or a mapping without ``id``, gets an id made from its text (the first 32 hexadecimal digits
    of its SHA-256), so the same text added twice is one passage.

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
        return Passage(_text_id(item), item)
    if isinstance(item, Mapping):
        return _from_mapping(item)
    raise InvalidInputError(f"a passage of type {type(item).__name__}; expected str, Passage or a mapping with 'text'")


def iter_passages(passages: Iterable[PassageLike]) -> Iterator[PassageLike]:
    """Iterate over `passages`.

    Raises
    ------
    InvalidInputError
        If it is one passage, whose characters or keys would be taken for passages, or not iterable.
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
    passage_id = item.get("id")
    metadata = item.get("metadata")
    return Passage(_text_id(text) if passage_id is None else passage_id, text, {} if metadata is None else metadata)


def _text_id(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
