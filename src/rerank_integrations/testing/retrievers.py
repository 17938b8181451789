"""The suite of retrievers of LangChain and LlamaIndex."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from rerank_integrations.testing.drivers import (
    QUERIES,
    Component,
    ConformanceError,
    Driver,
    Item,
    Native,
    NotApplicable,
    Recording,
    close,
    require,
    sample_items,
)
from rerank_integrations.testing.langchain_driver import LangChainDriver
from rerank_integrations.testing.llama_index_driver import LlamaIndexDriver
from rerank_integrations.testing.suite import Conformance, require_count_of_zero, shown, sources

_MANY = 100


class RetrieverConformance(Conformance):
    """The checks of a retriever; subclass the suite of your framework."""

    def retriever(self, documents: Sequence[Native], **options: Any) -> Component:
        """Return a new retriever over `documents`.

        Parameters
        ----------
        documents
            Documents of LangChain, or text nodes of LlamaIndex, with ids and metadata; a few, or none.
        options
            Arguments to pass to its constructor: none, `count_argument`, or one that it does not know.
        """
        raise NotImplementedError("define retriever(self, documents, **options) in your class")

    def hooked_retriever(self, documents: Sequence[Native], hook: Callable[[], None]) -> Component | None:
        """Return a retriever over `documents` whose model or search calls `hook` for each query.

        The hook notes the thread, or raises an error. With ``None``, the default, two checks are skipped.
        """
        return None

    def _documents(self, items: Sequence[Item]) -> list[Native]:
        return self.driver().documents(items)

    def _build(self, **options: Any) -> Component:
        return self.retriever(self._documents(sample_items()), **options)

    def _build_hooked(self, hook: Callable[[], None]) -> Component | None:
        return self.hooked_retriever(self._documents(sample_items()), hook)

    def _call(self, component: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        return self.driver().retrieve(component, query, recording)

    async def _acall(self, component: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        return await self.driver().aretrieve(component, query, recording)

    def _retrieve(self, items: Sequence[Item], count: int = _MANY, query: str = QUERIES[0]) -> list[Item]:
        component = self.retriever(self._documents(items), **{self.count_argument: count})
        return self._answer(component, query)

    def test_documents_come_back_whole(self) -> None:
        """Each result has the id, the text and every metadata key of the document that was stored.

        Citations, filters and deletions go by them.
        """
        stored = {item.text: item for item in sample_items()}
        for item in self._retrieve(sample_items()):
            original = stored.get(item.text)
            if original is None:
                raise ConformanceError(f"a result has the text {item.text[:60]!r}, which no document has")
            require(item.id == original.id, f"the document {original.id!r} came back with the id {item.id!r}")
            kept = {key: item.metadata.get(key) for key in original.metadata}
            require(kept == original.metadata, f"the metadata {original.metadata} came back as {kept}")

    def test_documents_given_stay_as_they_were(self) -> None:
        """Building the retriever and searching do not change the documents that it was given.

        The caller goes on using them.
        """
        driver, documents = self.driver(), self._documents(sample_items())
        before = driver.snapshot(documents)
        driver.retrieve(self.retriever(documents), QUERIES[0])
        require(driver.snapshot(documents) == before, "the documents that were given have changed")

    def test_results_are_new_objects(self) -> None:
        """A key that the caller adds to a result's metadata does not come back with the next query.

        A reranker writes scores there, and they would then be another query's.
        """
        component, driver = self._build(), self.driver()
        for result in driver.retrieve(component, QUERIES[0]):
            driver.metadata(result)["added_by_the_caller"] = True
        again = self._answer(component, QUERIES[0])
        changed = sum("added_by_the_caller" in item.metadata for item in again)
        require(changed == 0, f"{changed} results of a later query have a key that was added to earlier results")

    def test_no_documents(self) -> None:
        """A retriever over no documents finds nothing, or is refused by a ValueError.

        An empty folder is no crash.
        """
        try:
            answer = self._retrieve([])
        except ValueError as error:
            # Python's own message for an empty sequence says nothing about documents.
            require("unpack" not in str(error), f"no documents raised {shown(error)}, which does not say so")
        except Exception as error:
            raise ConformanceError(f"no documents raised {shown(error)}") from error
        else:
            require(answer == [], f"{len(answer)} results of no documents")

    def test_equal_ids_come_back_once(self) -> None:
        """A document that is given twice with the same id comes back once.

        A folder is indexed again, and copies fill the places of others.
        """
        items = sample_items()
        found = list(sources(self._retrieve([*items, *items[:3]])))
        repeated = len(found) - len(set(found))
        require(repeated == 0, f"{repeated} documents came back twice")

    def test_ties_are_repeatable(self) -> None:
        """Documents of equal scores come in the same order with every `k`.

        Otherwise pages of results repeat some documents and never show others.
        """
        text = sample_items()[0].text
        items = [replace(item, text=text) for item in sample_items()]
        component = self.retriever(self._documents(items), **{self.count_argument: _MANY})
        whole = list(sources(self._answer(component, QUERIES[0])))
        require(list(sources(self._answer(component, QUERIES[0]))) == whole, "equal documents came in another order")
        for count in (1, 3, 5):
            part = list(sources(self._retrieve(items, count=count)))
            require(part == whole[:count], f"the first {count} of equal documents are others than with a larger k")

    def test_k_over_the_number_of_documents(self) -> None:
        """A `k` above the number of documents returns each of them once at most.

        How many documents there are, or pass a filter, is not known beforehand.
        """
        found = list(sources(self._retrieve(sample_items())))
        require(0 < len(found) == len(set(found)) <= len(sample_items()), f"{len(found)} results of six documents")

    def test_k_cuts_the_ranking(self) -> None:
        """A `k` of 2 returns the first two of the whole ranking.

        A cut that chose others would make results depend on how many are asked for.
        """
        two, all_of_them = self._retrieve(sample_items(), count=2), self._retrieve(sample_items())
        require(len(two) == 2, f"{self.count_argument}=2 gave {len(two)} results")
        require(close(two, all_of_them[:2]), f"{self.count_argument}=2 gave others than the first two of the ranking")

    def test_k_of_zero(self) -> None:
        """A `k` of 0 returns nothing, or is refused.

        Code that computes how many passages fit into a prompt comes to 0, and must not get all of them.
        """
        require_count_of_zero(lambda: self._retrieve(sample_items(), count=0), self.count_argument)

    def test_any_unicode_text(self) -> None:
        """Chinese, emoji, right-to-left and combining characters are stored and come back as they were.

        None of it is rare in what people store.
        """
        texts = ("火星 看起来 是 红色 的", "🚀👩‍🚀🇪🇺 emoji", "المريخ كوكب أحمر", "e\u0301\u200b\u00ad\ufeff mars")
        items = [Item(f"text-{number}", text, {"source": f"{number}"}) for number, text in enumerate(texts)]
        found = [item.text for query in texts for item in self._retrieve(items, query=query)]
        require(set(found) <= set(texts), "a text was changed")
        require(set(found) == set(texts), f"{len(set(found))} of {len(texts)} texts were found by themselves as query")

    def test_long_text(self) -> None:
        """A text of 20,000 words is stored beside short ones, and comes back whole.

        What a model cannot read may be left out of its vectors, but not of the result.
        """
        long = Item("long", "Mars is red and rust is red. " * 3000, {"source": "long.txt"})
        found = self._retrieve([*sample_items(), long], query="Mars is red and rust is red.")
        require(any(item.text == long.text for item in found), "the long text was not found, or came back cut")

    def test_empty_text(self) -> None:
        """A document without text is stored or left out, and the others are found.

        Splitters and loaders give some, and one of them must not end an ingestion.
        """
        items = [*sample_items(), Item("empty", "", {"source": "empty"})]
        found = set(sources(self._retrieve(items)))
        require(found & set(sources(sample_items())), "no document was found beside one without text")


class LangChainRetrieverConformance(RetrieverConformance):
    """The suite of a LangChain retriever.

    Define ``retriever(self, documents, **options)``, and if you can ``hooked_retriever(self, documents, hook)``.
    """

    count_argument: ClassVar[str] = "k"
    score_key: ClassVar[str] = "relevance_score"
    """The metadata key of the score, if the retriever returns one."""

    def driver(self) -> Driver:
        """Return the translation to LangChain."""
        return LangChainDriver(self.score_key)


class LlamaIndexRetrieverConformance(RetrieverConformance):
    """The suite of a LlamaIndex retriever.

    Define ``retriever(self, documents, **options)``, and if you can ``hooked_retriever(self, documents, hook)``; the
    documents are text nodes.
    """

    count_argument: ClassVar[str] = "similarity_top_k"

    def driver(self) -> Driver:
        """Return the translation to LlamaIndex."""
        return LlamaIndexDriver()

    def _documents(self, items: Sequence[Item]) -> list[Native]:
        return [document.node for document in self.driver().documents(items)]

    def test_no_query(self) -> None:
        """Skip this check, because LlamaIndex itself reads ``query_str`` of the query before a retriever does."""
        raise NotApplicable("LlamaIndex reads the query before the retriever does")
