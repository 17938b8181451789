"""Conformance suites: checks that any reranker or retriever of LangChain or LlamaIndex can be run against.

Subclass a suite, build the component in one method, and pytest collects one test per check. Importing this package
loads neither pytest nor a framework; a suite loads its framework when a check runs.
"""

from rerank_integrations.testing.drivers import ConformanceError
from rerank_integrations.testing.rerankers import (
    LangChainRerankerConformance,
    LlamaIndexRerankerConformance,
    RerankerConformance,
)
from rerank_integrations.testing.retrievers import (
    LangChainRetrieverConformance,
    LlamaIndexRetrieverConformance,
    RetrieverConformance,
)
from rerank_integrations.testing.suite import CheckResult, Conformance, run_checks

__all__ = [
    "CheckResult",
    "Conformance",
    "ConformanceError",
    "LangChainRerankerConformance",
    "LangChainRetrieverConformance",
    "LlamaIndexRerankerConformance",
    "LlamaIndexRetrieverConformance",
    "RerankerConformance",
    "RetrieverConformance",
    "run_checks",
]
