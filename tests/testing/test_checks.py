"""Each check of the conformance suites catches a component that is broken in that one way."""

from __future__ import annotations

import random
import threading
from typing import Any

import conforming_langchain as langchain
import conforming_llama_index as llama_index
import numpy as np
import pytest
from conforming_langchain import with_hook
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore
from pydantic import ConfigDict

from rerank_integrations.testing import (
    Conformance,
    ConformanceError,
    LangChainRerankerConformance,
    LangChainRetrieverConformance,
    LlamaIndexRerankerConformance,
    LlamaIndexRetrieverConformance,
    run_checks,
)


class LangChainReranker(LangChainRerankerConformance):
    kind: type[Any] = langchain.GoodReranker

    def reranker(self, **options: Any) -> Any:
        return self.kind(**options)

    def hooked_reranker(self, hook: Any) -> Any:
        return with_hook(self.kind(), hook)


class LangChainRetriever(LangChainRetrieverConformance):
    kind: type[Any] = langchain.GoodRetriever

    def retriever(self, documents: Any, **options: Any) -> Any:
        return self.kind(documents=documents, **options)

    def hooked_retriever(self, documents: Any, hook: Any) -> Any:
        return with_hook(self.kind(documents=documents), hook)


class LlamaIndexReranker(LlamaIndexRerankerConformance):
    kind: type[Any] = llama_index.GoodReranker

    def reranker(self, **options: Any) -> Any:
        return self.kind(**options)

    def hooked_reranker(self, hook: Any) -> Any:
        return with_hook(self.kind(), hook)


class LlamaIndexRetriever(LlamaIndexRetrieverConformance):
    kind: type[Any] = llama_index.GoodRetriever

    def retriever(self, documents: Any, **options: Any) -> Any:
        return self.kind(documents, **options)

    def hooked_retriever(self, documents: Any, hook: Any) -> Any:
        return with_hook(self.kind(documents), hook)


SUITES = [LangChainReranker, LangChainRetriever, LlamaIndexReranker, LlamaIndexRetriever]
NOT_APPLICABLE = {LlamaIndexRetriever: {"no_query", "serialisation"}}


@pytest.mark.parametrize("suite", SUITES)
def test_a_component_without_fault_passes_every_check(suite: type[Conformance]) -> None:
    results = run_checks(suite())
    assert [(result.name, result.message) for result in results if result.outcome == "failed"] == []
    assert {result.name for result in results if result.outcome == "skipped"} == NOT_APPLICABLE.get(suite, set())


class OnlyOnce:
    """Mixed into a component that can be neither copied nor pickled."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("holds a lock")

    def __deepcopy__(self, memo: Any = None) -> Any:
        raise TypeError("holds a lock")


class Shuffles(langchain.GoodReranker):
    def order(self, scores: list[float]) -> list[int]:
        return random.SystemRandom().sample(range(len(scores)), len(scores))


class AsyncDiffers(langchain.GoodReranker):
    async def acompress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
        return self.compress_documents(documents, query[::2], callbacks)[:1]


class SharedState(langchain.GoodReranker):
    """Keeps the query on itself while it works, as a tokenizer keeps its settings."""

    _query: str = ""

    def rank(self, documents: list[Document], query: str) -> list[Document]:
        self._query = query
        threading.Event().wait(0.001)
        return super().rank(documents, self._query)


class BlocksTheLoop(langchain.GoodReranker):
    async def acompress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
        return self.compress_documents(documents, query, callbacks)


class NoQueryCheck(langchain.GoodReranker):
    def check(self, query: str) -> None:
        pass


class CrashesOnBlank(langchain.GoodReranker):
    def rank(self, documents: list[Document], query: str) -> list[Document]:
        return super().rank(documents, query) if query.split()[0] else []


class CrashesOnLongQuery(langchain.GoodReranker):
    def rank(self, documents: list[Document], query: str) -> list[Document]:
        if len(query) > 1000:
            raise RuntimeError("The size of tensor a (3002) must match the size of tensor b (512)")
        return super().rank(documents, query)


class NumPyScores(langchain.GoodReranker):
    def score(self, query: str, document: Document) -> Any:
        return np.float32(super().score(query, document))


class WorstFirst(langchain.GoodReranker):
    def order(self, scores: list[float]) -> list[int]:
        return super().order(scores)[::-1]


class Locked(OnlyOnce, langchain.GoodReranker):
    pass


class NotWritten(langchain.GoodReranker):
    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False


class TakesAnything(langchain.GoodReranker):
    model_config = ConfigDict(extra="ignore")


class NoEvents(langchain.GoodReranker):
    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
        return super().compress_documents(documents, query, None)


class ErrorsStayOpen(langchain.GoodReranker):
    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
        from langchain_core.callbacks import CallbackManager

        run = CallbackManager.configure(callbacks).on_chain_start(None, {"query": query}, name="open")
        ranked = super().compress_documents(documents, query, None)
        run.on_chain_end({"documents": ranked})
        return ranked


class WritesIntoInputs(langchain.GoodReranker):
    def result(self, document: Document, score: float) -> Document:
        document.metadata["relevance_score"] = score
        return super().result(document, score)


class ReturnsInputs(langchain.GoodReranker):
    def result(self, document: Document, score: float) -> Document:
        return document


class FailsOnNothing(langchain.GoodReranker):
    def rank(self, documents: list[Document], query: str) -> list[Document]:
        return super().rank(documents, query) if documents[0] else []


class KeepsCopies(langchain.GoodReranker):
    def unique(self, documents: list[Document]) -> list[Document]:
        return documents


class TurnsTies(langchain.GoodReranker):
    def order(self, scores: list[float]) -> list[int]:
        return [int(place) for place in np.argsort(scores, kind="stable")[::-1]]


class LosesTheLast(langchain.GoodReranker):
    def cut(self, documents: list[Document]) -> list[Document]:
        return documents[: min(self.top_n, len(documents) - 1)]


class CutsFromTheEnd(langchain.GoodReranker):
    def cut(self, documents: list[Document]) -> list[Document]:
        return documents[-self.top_n :]


class ZeroIsAll(langchain.GoodReranker):
    def cut(self, documents: list[Document]) -> list[Document]:
        return documents[: self.top_n or None]


class NoScores(langchain.GoodReranker):
    def result(self, document: Document, score: float) -> Document:
        return Document(id=document.id, page_content=document.page_content, metadata=dict(document.metadata))


class LosesIds(langchain.GoodReranker):
    def result(self, document: Document, score: float) -> Document:
        return super().result(document, score).model_copy(update={"id": None})


class WritesIntoTexts(llama_index.GoodReranker):
    def result(self, node: NodeWithScore, score: float) -> NodeWithScore:
        result = super().result(node, score)
        result.node.metadata["rerank_score"] = score
        return result


class CutsTexts(langchain.GoodReranker):
    def result(self, document: Document, score: float) -> Document:
        return super().result(document, score).model_copy(update={"page_content": document.page_content[:500]})


class LatinOnly(langchain.GoodReranker):
    def score(self, query: str, document: Document) -> float:
        document.page_content.encode("latin-1")
        return super().score(query, document)


class DividesByLength(langchain.GoodReranker):
    def score(self, query: str, document: Document) -> float:
        return 1 / len(document.page_content.split())


class Squeezes(langchain.GoodReranker):
    def rank(self, documents: list[Document], query: str) -> list[Document]:
        scores = np.squeeze(np.array([self.score(query, document) for document in documents]))
        return super().rank(documents, query)[: len(scores)]


class UsesUpIterators(langchain.GoodReranker):
    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
        scores = [self.score(query, document) for document in documents]
        return super().compress_documents(documents, query, callbacks) if scores else []


class ReadsItsOwnScore(langchain.GoodReranker):
    def score(self, query: str, document: Document) -> float:
        return super().score(query, document) + document.metadata.get("relevance_score", 0.0)


BROKEN_RERANKERS: dict[str, type[Any]] = {
    "calls_are_repeatable": Shuffles,
    "async_equals_sync": AsyncDiffers,
    "16_threads_equal_serial_calls": SharedState,
    "16_tasks_equal_serial_calls": SharedState,
    "event_loop_is_free": BlocksTheLoop,
    "no_query": NoQueryCheck,
    "blank_query": CrashesOnBlank,
    "long_query": CrashesOnLongQuery,
    "scores_are_floats": NumPyScores,
    "best_comes_first": WorstFirst,
    "results_are_json": NumPyScores,
    "pickle": Locked,
    "deep_copy": Locked,
    "serialisation": NotWritten,
    "unknown_argument_is_refused": TakesAnything,
    "events_on_success": NoEvents,
    "events_on_error": ErrorsStayOpen,
    "inputs_stay_as_they_were": WritesIntoInputs,
    "results_are_new_objects": ReturnsInputs,
    "no_candidates": FailsOnNothing,
    "equal_ids_come_back_once": KeepsCopies,
    "ties_keep_the_order": TurnsTies,
    "top_n_over_the_number_of_candidates": LosesTheLast,
    "top_n_cuts_the_ranking": CutsFromTheEnd,
    "top_n_of_zero": ZeroIsAll,
    "scores_are_reported": NoScores,
    "ids_and_metadata_are_kept": LosesIds,
    "texts_are_kept": WritesIntoTexts,
    "long_text": CutsTexts,
    "any_unicode_text": LatinOnly,
    "empty_text": DividesByLength,
    "one_candidate": Squeezes,
    "iterator_of_candidates": UsesUpIterators,
    "reranked_twice": ReadsItsOwnScore,
}


class StoredObjects(langchain.GoodRetriever):
    def result(self, document: Document, score: float) -> Document:
        return document


class WritesIntoDocuments(langchain.GoodRetriever):
    def result(self, document: Document, score: float) -> Document:
        document.metadata["relevance_score"] = score
        return super().result(document, score)


class LosesDocumentIds(langchain.GoodRetriever):
    def result(self, document: Document, score: float) -> Document:
        return super().result(document, score).model_copy(update={"id": None})


class CrashesOnNoDocuments(langchain.GoodRetriever):
    def search(self, query: str) -> list[Document]:
        return super().search(query) if sum(map(bool, self.documents)) / len(self.documents) else []


class FindsCopies(langchain.GoodRetriever):
    def search(self, query: str) -> list[Document]:
        return [self.result(document, 1.0) for document in self.documents][: self.k]


class TiesByK(langchain.GoodRetriever):
    def cut(self, documents: list[Document]) -> list[Document]:
        return documents[-self.k :] if self.k else []


class RepeatsToFill(langchain.GoodRetriever):
    def cut(self, documents: list[Document]) -> list[Document]:
        return (documents * 100)[: self.k]


class LastOnes(langchain.GoodRetriever):
    def cut(self, documents: list[Document]) -> list[Document]:
        return documents[::-1][: self.k]


class CutsDifferently(langchain.GoodRetriever):
    def cut(self, documents: list[Document]) -> list[Document]:
        return documents[: self.k] if self.k > 5 else documents[-self.k :]


class ZeroIsEverything(langchain.GoodRetriever):
    def cut(self, documents: list[Document]) -> list[Document]:
        return documents[: self.k or None]


class AsciiOnly(langchain.GoodRetriever):
    def search(self, query: str) -> list[Document]:
        return [document for document in super().search(query) if document.page_content.isascii()]


class StoresTheBeginning(langchain.GoodRetriever):
    def result(self, document: Document, score: float) -> Document:
        return super().result(document, score).model_copy(update={"page_content": document.page_content[:500]})


class DividesByWords(langchain.GoodRetriever):
    def score(self, query: str, document: Document) -> float:
        return 1 / len(document.page_content.split())


BROKEN_RETRIEVERS: dict[str, type[Any]] = {
    "documents_come_back_whole": LosesDocumentIds,
    "documents_given_stay_as_they_were": WritesIntoDocuments,
    "results_are_new_objects": StoredObjects,
    "no_documents": CrashesOnNoDocuments,
    "equal_ids_come_back_once": FindsCopies,
    "ties_are_repeatable": TiesByK,
    "k_over_the_number_of_documents": RepeatsToFill,
    "k_cuts_the_ranking": CutsDifferently,
    "k_of_zero": ZeroIsEverything,
    "any_unicode_text": AsciiOnly,
    "long_text": StoresTheBeginning,
    "empty_text": DividesByWords,
}


def outcome(suite: type[Any], kind: type[Any], check: str) -> str:
    """Return what the check says of a component, or an empty string if it passes."""
    broken = type("Broken", (suite,), {"kind": kind})()
    (result,) = run_checks(broken, only=[check])
    return result.message if result.outcome == "failed" else ""


@pytest.mark.parametrize("check", BROKEN_RERANKERS)
def test_a_broken_reranker_is_caught(check: str) -> None:
    kind = BROKEN_RERANKERS[check]
    suite = LlamaIndexReranker if issubclass(kind, llama_index.GoodReranker) else LangChainReranker
    assert outcome(suite, kind, check)


@pytest.mark.parametrize("check", BROKEN_RETRIEVERS)
def test_a_broken_retriever_is_caught(check: str) -> None:
    assert outcome(LangChainRetriever, BROKEN_RETRIEVERS[check], check)


def test_every_check_has_a_broken_component() -> None:
    rerankers = {result.name for result in run_checks(LangChainReranker())}
    retrievers = {result.name for result in run_checks(LangChainRetriever())}
    assert set(BROKEN_RERANKERS) == rerankers
    # Those that rerankers and retrievers share are broken above.
    assert retrievers - rerankers <= set(BROKEN_RETRIEVERS) <= retrievers


class OpenEvents(llama_index.GoodReranker):
    def _postprocess_nodes(self, nodes: Any, query_bundle: Any = None) -> list[NodeWithScore]:
        from llama_index.core.callbacks import CBEventType

        self.callback_manager.on_event_start(CBEventType.RERANKING)
        return super()._postprocess_nodes(nodes, query_bundle)


class OverwritesScores(llama_index.GoodReranker):
    def rank(self, nodes: list[NodeWithScore], query: str) -> list[NodeWithScore]:
        ranked = super().rank(nodes, query)
        for node in nodes:
            node.score = 0.0
        return ranked


class ForgetsItsOptions(llama_index.GoodReranker):
    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> ForgetsItsOptions:
        return cls(top_n=1)


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        ("events_on_success", OpenEvents),
        ("events_on_error", OpenEvents),
        ("no_candidates", OpenEvents),
        ("inputs_stay_as_they_were", OverwritesScores),
        ("serialisation", ForgetsItsOptions),
    ],
)
def test_llama_index_faults_are_caught(check: str, kind: type[Any]) -> None:
    assert outcome(LlamaIndexReranker, kind, check)


class SearchesOnTheLoop(llama_index.GoodRetriever):
    async def _aretrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        return self._retrieve(query_bundle)


def test_a_llama_index_retriever_that_blocks_the_loop_is_caught() -> None:
    assert outcome(LlamaIndexRetriever, SearchesOnTheLoop, "event_loop_is_free")


def test_an_error_of_a_check_is_an_assertion() -> None:
    assert issubclass(ConformanceError, AssertionError)


def test_a_suite_without_a_hooked_component_skips_two_checks() -> None:
    class Unhooked(LangChainReranker):
        def hooked_reranker(self, hook: Any) -> None:
            return None

    skipped = {result.name for result in run_checks(Unhooked()) if result.outcome == "skipped"}
    assert skipped == {"event_loop_is_free", "events_on_error"}


@pytest.mark.parametrize("method", ["reranker", "retriever"])
def test_a_suite_that_builds_nothing_says_which_method_to_define(method: str) -> None:
    suite: Any = LangChainRerankerConformance() if method == "reranker" else LangChainRetrieverConformance()
    results = run_checks(suite, only=["calls_are_repeatable"])
    assert f"define {method}(" in results[0].message
