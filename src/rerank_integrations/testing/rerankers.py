"""The suite of rerankers: document compressors of LangChain and node postprocessors of LlamaIndex."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from rerank_integrations.testing.drivers import (
    QUERIES,
    Component,
    ConformanceError,
    Driver,
    Item,
    Native,
    Recording,
    close,
    require,
    sample_items,
)
from rerank_integrations.testing.langchain_driver import LangChainDriver
from rerank_integrations.testing.llama_index_driver import LlamaIndexDriver
from rerank_integrations.testing.suite import Conformance, require_count_of_zero, sources

_MANY = 100


class RerankerConformance(Conformance):
    """The checks of a reranker; subclass the suite of your framework."""

    count_argument: ClassVar[str] = "top_n"

    def reranker(self, **options: Any) -> Component:
        """Return a new reranker.

        Parameters
        ----------
        options
            Arguments to pass to its constructor: none, `count_argument`, or one that it does not know.
        """
        raise NotImplementedError("define reranker(self, **options) in your class")

    def hooked_reranker(self, hook: Callable[[], None]) -> Component | None:
        """Return a reranker whose model calls `hook` each time that it scores.

        The hook notes the thread, or raises an error. With ``None``, the default, two checks are skipped.
        """
        return None

    def _build(self, **options: Any) -> Component:
        return self.reranker(**options)

    def _build_hooked(self, hook: Callable[[], None]) -> Component | None:
        return self.hooked_reranker(hook)

    def _call(self, component: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        driver = self.driver()
        return driver.rerank(component, driver.documents(sample_items()), query, recording)

    async def _acall(self, component: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        driver = self.driver()
        return await driver.arerank(component, driver.documents(sample_items()), query, recording)

    def _rank(self, items: list[Item], count: int = _MANY) -> list[Item]:
        driver = self.driver()
        return self._items(driver.rerank(self._with_count(count), driver.documents(items), QUERIES[0]))

    def _require_no_ranking(self, answer: list[Item]) -> None:
        came = list(sources(sample_items()))
        require(
            list(sources(answer)) == came[: len(answer)],
            "None as the query was answered by an order of the candidates, as if it were a text",
        )

    def test_inputs_stay_as_they_were(self) -> None:
        """The caller's list, documents or nodes are not changed.

        The same objects are often in a cache, in a document store or in another branch of a chain.
        """
        component, driver = self._build(), self.driver()
        documents = driver.documents(sample_items())
        originals, before = list(documents), driver.snapshot(documents)
        driver.rerank(component, documents, QUERIES[0])
        asyncio.run(driver.arerank(component, documents, QUERIES[1]))
        same = len(documents) == len(originals) and all(
            now is then for now, then in zip(documents, originals, strict=True)
        )
        require(same, "the list of candidates was changed")
        require(driver.snapshot(documents) == before, "the candidates were changed: their scores or their metadata")

    def test_results_are_new_objects(self) -> None:
        """A key that the caller adds to a result's metadata does not appear in the candidates.

        A later step writes its own notes into the results, and the candidates may be the objects of a store.
        """
        component, driver = self._build(), self.driver()
        documents = driver.documents(sample_items())
        results = driver.rerank(component, documents, QUERIES[0])
        after = driver.snapshot(documents)
        for result in results:
            driver.metadata(result)["added_by_the_caller"] = True
        require(
            driver.snapshot(documents) == after, "the results are the candidates themselves, or share their metadata"
        )

    def test_no_candidates(self) -> None:
        """No candidates give no results, and every event that was started ends.

        A retriever that finds nothing is no error.
        """
        component, driver = self._build(), self.driver()
        with driver.recording(component) as recording:
            require(driver.rerank(component, [], QUERIES[0], recording) == [], "no candidates gave results")
        require(asyncio.run(driver.arerank(component, [], QUERIES[0])) == [], "no candidates gave results")
        open_runs = sum(run.ends != 1 for run in recording.runs.values())
        require(open_runs == 0, f"{open_runs} events were started and not ended once")

    def test_equal_ids_come_back_once(self) -> None:
        """A candidate that is given twice with the same id and text comes back once.

        Hybrid and multi-query retrieval give the same passage several times, and copies fill the places of others.
        """
        items = sample_items()
        counts = Counter(sources(self._rank([*items, *items[:3]])))
        repeated = sum(count > 1 for count in counts.values())
        require(len(counts) == len(items), f"{len(counts)} different candidates came back of {len(items)}")
        require(repeated == 0, f"{repeated} candidates came back twice")

    def test_ties_keep_the_order(self) -> None:
        """Candidates of equal scores stay in the order in which they came.

        That order is the retriever's, which is the best guess where the reranker has none; any other order changes from
        run to run or from machine to machine.
        """
        text = sample_items()[0].text
        items = [replace(item, text=text) for item in sample_items()]
        ranked = self._rank(items)
        places = {source: place for place, source in enumerate(sources(items))}
        if all(item.score is not None for item in ranked):
            # Where a batch rounds equal texts differently, the scores decide.
            expected = sorted(ranked, key=lambda item: (-float(item.score), places[item.metadata.get("source")]))
        else:
            expected = sorted(ranked, key=lambda item: places[item.metadata.get("source")])
        require(len(ranked) == len(items), f"{len(ranked)} of {len(items)} equal candidates came back")
        came = [places[source] for source in sources(ranked)]
        require(ranked == expected, f"six candidates of equal scores came back in the order {came}")

    def test_top_n_over_the_number_of_candidates(self) -> None:
        """A `top_n` above the number of candidates returns each of them once.

        How many candidates a retriever finds is not known beforehand.
        """
        ranked = self._rank(sample_items(), count=_MANY)
        lost = len(sample_items()) - len(set(sources(ranked)))
        require(lost == 0 and len(ranked) == len(sample_items()), f"{len(ranked)} results, and {lost} candidates lost")

    def test_top_n_cuts_the_ranking(self) -> None:
        """A `top_n` of 2 returns the first two of the whole ranking.

        A cut that chose others would make results depend on how many are asked for.
        """
        two, all_of_them = self._rank(sample_items(), count=2), self._rank(sample_items())
        require(len(two) == 2, f"{self.count_argument}=2 gave {len(two)} results")
        require(close(two, all_of_them[:2]), f"{self.count_argument}=2 gave others than the first two of the ranking")

    def test_top_n_of_zero(self) -> None:
        """A `top_n` of 0 returns nothing, or is refused.

        Code that computes how many passages fit into a prompt comes to 0, and must not get all of them.
        """
        require_count_of_zero(lambda: self._rank(sample_items(), count=0), self.count_argument)

    def test_scores_are_reported(self) -> None:
        """Each result has its score: in LangChain in the metadata, in LlamaIndex on the node.

        Thresholds, traces and evaluations need it.
        """
        missing = sum(item.score is None for item in self._answer(self._build(), QUERIES[0]))
        require(missing == 0, f"{missing} results have no score")

    def test_ids_and_metadata_are_kept(self) -> None:
        """Each result has the id, the text and every metadata key of its candidate.

        Citations, filters and deletions go by them.
        """
        given = {item.text: item for item in sample_items()}
        for item in self._rank(sample_items()):
            original = given.get(item.text)
            if original is None:
                raise ConformanceError(f"a result has the text {item.text[:60]!r}, which no candidate has")
            require(item.id == original.id, f"the candidate {original.id!r} came back with the id {item.id!r}")
            kept = {key: item.metadata.get(key) for key in original.metadata}
            require(kept == original.metadata, f"the metadata {original.metadata} came back as {kept}")

    def test_texts_are_kept(self) -> None:
        """No text that a model reads of a result has the reranker's scores in it.

        LlamaIndex shows a node's metadata to the language model and to embedding models, unless its key is excluded.
        """
        component, driver = self._build(), self.driver()
        before = {
            item.metadata["source"]: driver.texts(document)
            for item, document in zip(sample_items(), driver.documents(sample_items()), strict=True)
        }
        for result in driver.rerank(component, driver.documents(sample_items()), QUERIES[0]):
            texts = driver.texts(result)
            source = driver.item(result).metadata.get("source")
            require(texts == before[source], f"a model reads {texts[-1][:80]!r} of the result; expected the text alone")

    def test_long_text(self) -> None:
        """A text of 20,000 words is scored beside short ones, and comes back whole.

        Loaders give whole books. What a model cannot read may be cut for its score, but not from the result.
        """
        long = Item("long", "Mars is red and rust is red. " * 3000, {"source": "long.txt"})
        ranked = self._rank([*sample_items(), long])
        require(len(ranked) == len(sample_items()) + 1, "a candidate was lost")
        require(any(item.text == long.text for item in ranked), "the long text came back cut")
        self._require_finite(ranked, "a text of 20,000 words")

    def test_any_unicode_text(self) -> None:
        """Chinese, emoji, right-to-left and combining characters are ranked and come back as they were.

        None of it is rare in what people store.
        """
        texts = (
            "火星看起来是红色的，因为它的土壤含有氧化铁。",
            "🚀👩‍🚀🇪🇺 emoji",
            "المريخ كوكب أحمر",
            "e\u0301\u200b\u00ad\ufeff",
            "\x00\x1b[0m",
        )
        items = [Item(f"text-{number}", text, {"source": f"{number}"}) for number, text in enumerate(texts)]
        ranked = self._rank(items)
        require(sorted(item.text for item in ranked) == sorted(texts), "a text was lost or changed")
        self._require_finite(ranked, "texts of many scripts")

    def test_empty_text(self) -> None:
        """A candidate without text is ranked like any other.

        Splitters and loaders give some, and one of them must not end the answer to a question.
        """
        items = [*sample_items(), Item("empty", "", {"source": "empty"}), Item("blank", " \n", {"source": "blank"})]
        ranked = self._rank(items)
        require(len(ranked) == len(items), f"{len(ranked)} of {len(items)} candidates came back")
        self._require_finite(ranked, "a candidate without text")

    def test_one_candidate(self) -> None:
        """One candidate alone comes back.

        Models squeeze dimensions of size one, and what they return is then no list.
        """
        require(len(self._rank(sample_items()[:1])) == 1, "one candidate did not come back")

    def test_iterator_of_candidates(self) -> None:
        """An iterator is ranked like a list, or refused.

        The frameworks ask for a list, so an error is right; an empty answer is not, because the candidates are lost.
        """
        component, driver = self._build(), self.driver()
        expected = self._answer(component, QUERIES[0])
        try:
            results = driver.rerank(component, iter(driver.documents(sample_items())), QUERIES[0])
        except (TypeError, ValueError):
            return
        message = f"an iterator over the candidates gave {len(results)} results, and a list {len(expected)}"
        require(close(self._items(results), expected), message)

    def test_reranked_twice(self) -> None:
        """A ranking can be reranked again, and is then in the order of a single reranking.

        Two-stage pipelines and agents do it.
        """
        driver = self.driver()
        once = driver.rerank(self._with_count(_MANY), driver.documents(sample_items()), QUERIES[0])
        expected = self._items(once)
        twice = self._items(driver.rerank(self._with_count(_MANY), once, QUERIES[0]))
        require(close(twice, expected), "a second reranking gave another answer")


class LangChainRerankerConformance(RerankerConformance):
    """The suite of a LangChain document compressor that reranks.

    Define ``reranker(self, **options)``, and if you can ``hooked_reranker(self, hook)``.
    """

    score_key: ClassVar[str] = "relevance_score"
    """The metadata key of the score; it is the one that LangChain's own integrations write."""

    def driver(self) -> Driver:
        """Return the translation to LangChain."""
        return LangChainDriver(self.score_key)


class LlamaIndexRerankerConformance(RerankerConformance):
    """The suite of a LlamaIndex node postprocessor that reranks.

    Define ``reranker(self, **options)``, and if you can ``hooked_reranker(self, hook)``.
    """

    def driver(self) -> Driver:
        """Return the translation to LlamaIndex."""
        return LlamaIndexDriver()
