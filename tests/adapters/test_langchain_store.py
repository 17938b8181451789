"""`ColBERTVectorStore`: what it stores, finds, removes and refuses, each asynchronously too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, IndexReadOnlyError, InvalidInputError
from rerank_integrations.langchain import ColBERTRetriever, ColBERTVectorStore

DOCUMENTS = [
    Document(id="a", page_content="red fox", metadata={"source": "a.pdf", "page": 1}),
    Document(id="b", page_content="red fox jumps", metadata={"source": "a.pdf", "page": 2}),
    Document(id="c", page_content="blue whale", metadata={"source": "b.pdf", "page": 1}),
]


@pytest.fixture
def store() -> Iterator[ColBERTVectorStore]:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        filled = ColBERTVectorStore(index)
        filled.add_documents(DOCUMENTS)
        yield filled


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


def test_documents_come_back_as_they_were_added(store: ColBERTVectorStore) -> None:
    assert store.similarity_search("red fox", k=3)[0] == DOCUMENTS[0]
    assert store.get_by_ids(["c", "unknown", "a"]) == [DOCUMENTS[2], DOCUMENTS[0]]
    assert store.similarity_search(" ") == []


def test_equal_texts_of_two_sources_remain_two(store: ColBERTVectorStore) -> None:
    pages = [Document(page_content="All rights reserved.", metadata={"source": name}) for name in ("x.pdf", "y.pdf")]
    added = store.add_documents(pages)
    assert len(set(added)) == 2
    assert [page.id for page in pages] == [None, None]
    assert [document.metadata["source"] for document in store.get_by_ids(added)] == ["x.pdf", "y.pdf"]
    assert ids(store.get_by_ids(added)) == added


def test_ids_by_name_take_the_place_of_the_documents_own(store: ColBERTVectorStore) -> None:
    assert store.add_documents(DOCUMENTS[:2], ids=["x", "y"]) == ["x", "y"]
    own, random = store.add_documents([Document(id="z", page_content="one"), Document(page_content="two")])
    assert own == "z"
    assert store.get_by_ids([random])[0].page_content == "two"
    named, random = store.add_texts(["three", "four"], [{"n": 3}, {"n": 4}], ids=["t", None])
    assert (named, len(random)) == ("t", 36)


def test_documents_are_added_in_batches_of_the_callers_size(store: ColBERTVectorStore) -> None:
    many = [Document(id=f"m{number}", page_content=f"text {number}") for number in range(7)]
    assert store.add_documents(many, batch_size=3) == ids(many)
    assert store.add_documents([], batch_size=3) == store.add_documents([]) == []
    assert len(store.index) == 10


def test_delete_by_ids_by_filter_and_all(store: ColBERTVectorStore) -> None:
    assert store.delete(["b", "unknown"]) is True
    assert store.delete([]) is True
    assert sorted(store.index.ids()) == ["a", "c"]
    store.delete(filter={"source": "a.pdf"})
    assert list(store.index.ids()) == ["c"]
    with pytest.raises(InvalidInputError, match="both"):
        store.delete(["c"], filter={})
    store.delete()
    assert len(store.index) == 0


def test_scores_and_relevances(store: ColBERTVectorStore) -> None:
    scored = store.similarity_search_with_score("red fox", k=3)
    hits = store.index.search("red fox", 3)
    assert [(document.id, score) for document, score in scored] == [(hit.id, hit.score) for hit in hits]
    relevant = store.similarity_search_with_relevance_scores("red fox", k=3)
    assert [relevance for _, relevance in relevant] == [min(1.0, max(0.0, hit.score / 2)) for hit in hits]
    above = store.similarity_search_with_relevance_scores("red fox", k=3, score_threshold=0.99)
    assert ids([document for document, _ in above]) == ["a", "b"]


def test_a_filter_applies_before_the_search(store: ColBERTVectorStore) -> None:
    where = {"source": "b.pdf"}
    assert ids(store.similarity_search("red fox", k=1, filter=where)) == ["c"]
    assert ids([document for document, _ in store.similarity_search_with_score("red", filter=where)]) == ["c"]
    assert ids([document for document, _ in store.similarity_search_with_relevance_scores("red", filter=where)]) == [
        "c"
    ]
    assert ids(store.max_marginal_relevance_search("red", filter=where)) == ["c"]


def test_diverse_documents(store: ColBERTVectorStore) -> None:
    assert ids(store.similarity_search("red fox", k=2)) == ["a", "b"]
    assert ids(store.max_marginal_relevance_search("red fox", k=2, lambda_mult=0.2)) == ["a", "c"]


def test_retrievers_of_each_search_type(store: ColBERTVectorStore) -> None:
    similar = store.as_retriever(search_kwargs={"k": 2, "filter": {"page": 1}})
    assert ids(similar.invoke("red fox")) == ["a", "c"]
    diverse = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.2})
    assert ids(diverse.invoke("red fox")) == ["a", "c"]
    above = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.99})
    assert ids(above.invoke("red fox")) == ["a", "b"]
    for retriever in (similar, diverse, above):
        assert asyncio.run(retriever.ainvoke("red fox")) == retriever.invoke("red fox")


def test_asynchronous_methods_answer_the_same_off_the_loop(store: ColBERTVectorStore) -> None:
    threads: set[int] = set()
    search = store.index.search

    def noting(*args: Any, **kwargs: Any) -> Any:
        threads.add(threading.get_ident())
        return search(*args, **kwargs)

    async def run() -> None:
        store.index.search = noting  # type: ignore[method-assign]
        where = {"page": 1}
        assert await store.asimilarity_search("red", filter=where) == store.similarity_search("red", filter=where)
        threads.clear()
        scored = await store.asimilarity_search_with_score("red", 2)
        assert threading.get_ident() not in threads
        assert scored == store.similarity_search_with_score("red", 2)
        relevant = await store.asimilarity_search_with_relevance_scores("red", 2, score_threshold=0.1)
        assert relevant == store.similarity_search_with_relevance_scores("red", 2, score_threshold=0.1)
        assert await store.amax_marginal_relevance_search("red", 2) == store.max_marginal_relevance_search("red", 2)
        assert await store.aget_by_ids(["a"]) == DOCUMENTS[:1]
        added = await store.aadd_texts(["green frog"], [{"source": "c.pdf"}])
        assert await store.aadd_documents([Document(id="d", page_content="d")]) == ["d"]
        assert await store.adelete(["d", *added]) is True
        await store.adelete(filter={"source": "a.pdf"})
        assert list(store.index.ids()) == ["c"]

    asyncio.run(run())


def test_callers_at_once_lose_nothing(store: ColBERTVectorStore) -> None:
    async def run() -> list[list[Document]]:
        adding = (store.aadd_documents([Document(id=f"n{number}", page_content="red")]) for number in range(16))
        searching = (store.asimilarity_search("red fox", 2) for _ in range(16))
        _, *results = await asyncio.gather(asyncio.gather(*adding), *searching)
        return results

    assert all(documents[0] == DOCUMENTS[0] for documents in asyncio.run(run()))
    assert store.index.count() == 19
    assert store.index.verify().passages == 19


@pytest.mark.parametrize("method", ["similarity_search_by_vector", "max_marginal_relevance_search_by_vector"])
def test_a_single_vector_is_refused_with_the_method_to_call(store: ColBERTVectorStore, method: str) -> None:
    instead = method.removesuffix("_by_vector")
    with pytest.raises(NotImplementedError, match=rf"call {instead}\(query\)"):
        getattr(store, method)([0.1, 0.2])
    with pytest.raises(NotImplementedError, match=rf"call a{instead}\(query\)"):
        asyncio.run(getattr(store, f"a{method}")([0.1, 0.2]))


def test_a_store_from_texts_and_documents(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    texts = ColBERTVectorStore.from_texts(["red fox", "blue whale"], encoder, [{"n": 1}, {"n": 2}], ids=["a", None])
    assert texts.similarity_search("red fox", k=1) == [Document(id="a", page_content="red fox", metadata={"n": 1})]
    assert len(texts.index) == 2
    folder = tmp_path / "library"
    for _ in range(2):
        stored = ColBERTVectorStore.from_documents(DOCUMENTS, encoder, path=folder, nbits=4)
        assert len(stored.index) == 3
    stored.index.close()
    again = asyncio.run(ColBERTVectorStore.afrom_documents(DOCUMENTS, encoder, path=folder))
    assert ids(again.get_by_ids(["a", "b", "c"])) == ["a", "b", "c"]
    reading = ColBERTVectorStore({"path": folder, "model": encoder})
    assert ids(reading.similarity_search("blue whale", k=1)) == ["c"]
    with pytest.raises(IndexReadOnlyError):
        reading.add_texts(["more"])
    again.index.close()
    reading.index.close()
    assert len(asyncio.run(ColBERTVectorStore.afrom_texts(["one"], encoder)).index) == 1


def test_a_store_that_pools_tokens(tmp_path: Path) -> None:
    encoder, path = ToyEncoder(), tmp_path / "library"
    made = ColBERTVectorStore.from_texts(["red fox jumps over it"], encoder, path=path, pool_factor=2)
    assert (made.index.stats().pool_factor, made.index.stats().tokens) == (2.0, 3)
    again = ColBERTVectorStore.from_documents(DOCUMENTS, encoder, path=path)
    assert again.index.pool_factor == 2.0
    with pytest.raises(InvalidInputError, match="pool_factor is 3"):
        ColBERTVectorStore.from_texts(["x"], encoder, path=path, pool_factor=3)
    again.index.close()
    assert ColBERTRetriever.from_texts(["red fox jumps"], encoder, pool_factor=2).index.stats().tokens == 2
    assert asyncio.run(ColBERTVectorStore.afrom_texts(["one"], encoder, pool_factor=2)).index.pool_factor == 2.0


def test_a_retriever_from_texts_and_documents(tmp_path: Path) -> None:
    retriever = ColBERTRetriever.from_documents(DOCUMENTS, ToyEncoder(), k=1, filter={"page": 1})
    assert ids(retriever.invoke("red fox jumps")) == ["a"]
    retriever = ColBERTRetriever.from_texts(
        ["red fox", "blue whale"], ToyEncoder(), ids=["a", "b"], path=tmp_path / "i"
    )
    assert retriever.k == 10
    assert ids(retriever.invoke("blue whale")) == ["b", "a"]
    retriever.index.close()


@pytest.mark.parametrize("embedding", [None, DeterministicFakeEmbedding(size=6), 7])
def test_an_embedding_of_a_wrong_kind_is_refused(embedding: Any) -> None:
    with pytest.raises(InvalidInputError, match="ColBERTModel"):
        ColBERTVectorStore.from_texts(["text"], embedding)


def test_what_cannot_be_stored_is_refused_by_name(store: ColBERTVectorStore) -> None:
    refused: list[tuple[Any, str]] = [
        (lambda: store.add_texts("text"), "texts is one str"),
        (lambda: store.add_texts(["a", "b"], [{}]), "metadatas has 1 items for 2 texts"),
        (lambda: store.add_texts(["a"], ids=["x", "y"]), "ids has 2 items for 1 texts"),
        (lambda: store.add_texts(["a"], ids="x"), "ids is one str"),
        (lambda: store.add_documents(DOCUMENTS, ids=["x"]), "ids has 1 items for 3 texts"),
        (lambda: store.add_documents(["text"]), "of type str; expected Document"),
        (lambda: store.add_documents(DOCUMENTS[0]), "documents is one Document"),
        (lambda: store.add_documents(DOCUMENTS, batch_size=0), "batch_size is 0"),
        (lambda: store.add_texts(["a"], [{"when": object()}]), "metadata of passage"),
        (lambda: store.similarity_search("red", k=-1), "k is -1"),
        (lambda: store.delete(filter={"page": {"$near": 1}}), "unknown filter operator"),
    ]
    for call, message in refused:
        with pytest.raises(InvalidInputError, match=message):
            call()
    unknown: list[Any] = [
        lambda: store.similarity_search("red", where={}),
        lambda: store.add_texts(["a"], namespace="n"),
        lambda: store.delete(["a"], namespace="n"),
    ]
    for call in unknown:
        with pytest.raises(TypeError, match=r"where|namespace"):
            call()
    assert len(store.index) == 3


def test_documents_that_cannot_all_be_stored_are_not_stored_in_part() -> None:
    documents = [Document(page_content=f"text {number}") for number in range(300)]
    documents[-1].metadata["wrong"] = float("nan")
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        store = ColBERTVectorStore(index)
        with pytest.raises(InvalidInputError, match="wrong"):
            store.add_documents(documents)
        assert len(index) == 0
        with pytest.raises(InvalidInputError, match="reserved"):
            store.add_texts(["a text"], [{"_rerank_integrations_node": {"mine": 1}}])
        assert len(index) == 0


def test_a_filter_in_place_of_ids_is_refused() -> None:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        store = ColBERTVectorStore(index)
        store.add_texts(["a text"], [{"n": 1}])
        with pytest.raises(InvalidInputError, match="filter="):
            store.delete({"n": 1})
        assert len(index) == 1


def test_a_retriever_with_a_wrong_k_stores_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="k is -1"):
        ColBERTRetriever.from_texts(["a text"], ToyEncoder(), path=tmp_path / "index", k=-1)
    assert not (tmp_path / "index").exists()
