"""LangChain components over the core; needs ``langchain-core`` alone."""

from rerank_integrations.errors import MissingExtraError

try:
    import langchain_core as _langchain_core  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "langchain_core":
        raise
    raise MissingExtraError("langchain", "rerank_integrations.langchain") from _error

from rerank_integrations.langchain.documents import RankedDocument
from rerank_integrations.langchain.rerank import CascadeRerank, ColBERTRerank, CrossEncoderRerank
from rerank_integrations.langchain.retriever import ColBERTRetriever, RerankingRetriever
from rerank_integrations.langchain.self_query import ColBERTFilterTranslator
from rerank_integrations.langchain.tool import create_retriever_tool
from rerank_integrations.langchain.vector_store import ColBERTVectorStore

__all__ = [
    "CascadeRerank",
    "ColBERTFilterTranslator",
    "ColBERTRerank",
    "ColBERTRetriever",
    "ColBERTVectorStore",
    "CrossEncoderRerank",
    "RankedDocument",
    "RerankingRetriever",
    "create_retriever_tool",
]
