"""Documents with scores in their metadata, equal to documents of the same content whatever their scores."""

from __future__ import annotations

from langchain_core.documents import Document
from pydantic import PrivateAttr
from typing_extensions import Self

from rerank_integrations.core.reranking.metadata import RETRIEVAL_KEYS, RankedMetadata, score_keys_of


class RankedDocument(Document):
    """A document from a retriever or reranker of this package, with scores in its metadata.

    Scores, ranks and notes belong to a query. So two such documents are equal if their ids, texts and the rest of their
    metadata are, and what merges documents by value, as LangChain's ``MultiQueryRetriever`` does, merges the same
    passage of several queries. A plain document is equal to it if it has the same scores and notes, or none of them.
    LangChain's ``dumpd`` writes it as a plain document.
    """

    _score_keys: frozenset[str] | None = PrivateAttr(default=None)

    @classmethod
    def from_document(cls, document: Document, metadata: RankedMetadata) -> Self:
        """Return a document with the id and text of `document`, and other metadata."""
        made = cls(id=document.id, page_content=document.page_content, metadata=metadata.values)
        made._score_keys = metadata.score_keys
        return made

    @classmethod
    def lc_id(cls) -> list[str]:
        """Return the identifier of a plain document, as which LangChain writes and reads this one."""
        return Document.lc_id()

    @property
    def score_keys(self) -> frozenset[str]:
        """The keys of the metadata that belong to the query: they are not compared."""
        if self._score_keys is not None:
            return self._score_keys & self.metadata.keys()
        # Another program's copy of the fields alone.
        return score_keys_of(self.metadata) or frozenset(RETRIEVAL_KEYS) & self.metadata.keys()

    def __eq__(self, other: object) -> bool:
        """Compare ids, texts and metadata, the latter without scores and notes."""
        if not isinstance(other, Document) or type(other) not in (Document, RankedDocument):
            return NotImplemented
        if self.id != other.id or self.page_content != other.page_content:
            return False
        ignored = self.score_keys
        content = {key: value for key, value in self.metadata.items() if key not in ignored}
        if not isinstance(other, RankedDocument):
            return other.metadata in (content, self.metadata)
        ignored = other.score_keys
        return content == {key: value for key, value in other.metadata.items() if key not in ignored}
