"""The vector store in LlamaIndex's own hands: indexes, storage contexts and ingestion pipelines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import IndexNode, NodeRelationship, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from rerank_integrations import ColBERTIndex, ColBERTModel, IndexReadOnlyError, InvalidInputError, Passage
from rerank_integrations.llama_index import ColBERTManagedIndex, ColBERTRetriever, ColBERTVectorStore

EMBEDDING = MockEmbedding(embed_dim=1)
LONG = "Mars is the fourth planet, and it is red. Its two moons are small. " * 6
RECENT = MetadataFilters(filters=[MetadataFilter(key="year", operator=FilterOperator.GTE, value=2023)])
NO_TEXT_MATCH = MetadataFilters(filters=[MetadataFilter(key="a", operator=FilterOperator.TEXT_MATCH, value="b")])


@pytest.fixture
def store(colbert: ColBERTModel) -> Iterator[ColBERTVectorStore]:
    with ColBERTIndex.create(None, colbert) as index:
        yield ColBERTVectorStore(index)


def nodes() -> list[TextNode]:
    return [
        TextNode(
            id_=f"{source}{number}",
            text=f"{source} {number} of the planets",
            metadata={"year": 2022 + number},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)},
        )
        for source in ("mars", "venus")
        for number in range(3)
    ]


def ids(found: Any) -> list[str]:
    return [item.node_id for item in found]


def texts(store: ColBERTVectorStore) -> list[str]:
    return sorted(node.get_content() for node in store.get_nodes())


def test_add_get_and_delete(store: ColBERTVectorStore) -> None:
    added = nodes()
    before = [node.to_dict() for node in added]
    assert store.add(added) == ids(added)
    assert store.add([]) == []
    assert [node.to_dict() for node in store.get_nodes(["venus1", "mars0"])] == [before[4], before[0]]
    assert ids(store.get_nodes(["venus0", "mars1", "none"], RECENT)) == ["mars1"]
    assert sorted(ids(store.get_nodes(filters=RECENT))) == ["mars1", "mars2", "venus1", "venus2"]
    store.delete_nodes(["mars0", "mars1", "none"], RECENT)
    store.delete_nodes([])
    assert sorted(ids(store.get_nodes())) == ["mars0", "mars2", "venus0", "venus1", "venus2"]
    store.delete_nodes(["mars0"])
    store.delete("venus")
    store.delete("nothing")
    assert ids(store.get_nodes()) == ["mars2"]
    store.delete_nodes(filters=RECENT)
    store.add(added)
    store.clear()
    assert store.get_nodes() == []
    assert [node.to_dict() for node in added] == before


def test_delete_reaches_nodes_without_a_source_and_passages_that_were_no_nodes(store: ColBERTVectorStore) -> None:
    store.add([Document(doc_id="mars", text="Mars"), TextNode(id_="mine", text="b", metadata={"ref_doc_id": "mars"})])
    store.index.upsert([Passage("old", "Mars", {"ref_doc_id": "mars"}), Passage("other", "Mars")])
    store.delete("mars")
    assert sorted(ids(store.get_nodes())) == ["mine", "other"]


def test_a_query_is_a_search_of_the_index(store: ColBERTVectorStore) -> None:
    store.add(nodes())
    hits = store.index.search("mars", 2)
    result = store.query(VectorStoreQuery(query_str="mars", similarity_top_k=2))
    assert (result.ids, result.similarities) == ([hit.id for hit in hits], [hit.score for hit in hits])
    assert [node.ref_doc_id for node in result.nodes or []] == [hit.id[:-1] for hit in hits]
    allowed = {"query_str": "mars", "similarity_top_k": 9}
    assert set(store.query(VectorStoreQuery(**allowed, doc_ids=["venus"])).ids or []) == {"venus0", "venus1", "venus2"}
    both = store.query(VectorStoreQuery(**allowed, doc_ids=["venus"], filters=RECENT))
    assert set(both.ids or []) == {"venus1", "venus2"}
    assert store.query(VectorStoreQuery(**allowed, node_ids=["mars0", "none"])).ids == ["mars0"]
    assert len(store.query(VectorStoreQuery(**allowed, node_ids=[], doc_ids=[])).ids or []) == 6
    assert store.query(VectorStoreQuery(query_str="", similarity_top_k=2)).ids == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"query_str": None, "query_embedding": [0.5]}, "no query_str; this store searches by text"),
        ({"mode": VectorStoreQueryMode.MMR}, "mode is 'mmr'; expected one of 'default', 'text_search', 'hybrid'"),
        ({"alpha": 0.5}, "alpha of the query is 0.5"),
        ({"mmr_threshold": 0.5}, "mmr_threshold of the query is 0.5"),
        ({"filters": NO_TEXT_MATCH}, "'text_match' on 'a' is not supported"),
        ({"similarity_top_k": -1}, "is -1"),
    ],
)
def test_what_the_store_cannot_do_is_refused_by_name(
    store: ColBERTVectorStore, query: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        store.query(VectorStoreQuery(**{"query_str": "mars", **query}))


def test_unknown_arguments_are_refused_and_nothing_is_deleted(store: ColBERTVectorStore) -> None:
    store.add(nodes())
    with pytest.raises(InvalidInputError, match=r"query has the arguments \['probe'\]"):
        store.query(VectorStoreQuery(query_str="mars"), probe=3)
    for call in (
        lambda: store.add(nodes(), probe=3),
        lambda: store.delete("mars", probe=3),
        lambda: store.delete_nodes(["mars0"], probe=3),
        lambda: ColBERTVectorStore(store.index, probe=3),
        store.delete_nodes,
        lambda: store.delete_nodes(filters=MetadataFilters(filters=[])),
        lambda: store.add([TextNode(text="a"), "b"]),  # type: ignore[list-item]
    ):
        with pytest.raises(InvalidInputError):
            call()
    assert len(store.index) == 6


def noting_the_thread(method: Callable[..., Any], threads: set[str]) -> Callable[..., Any]:
    def noting(*args: Any, **kwargs: Any) -> Any:
        threads.add(threading.current_thread().name)
        return method(*args, **kwargs)

    return noting


async def test_async_does_the_same_on_other_threads(store: ColBERTVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    for name in ("upsert", "delete", "get", "search"):
        monkeypatch.setattr(ColBERTIndex, name, noting_the_thread(getattr(ColBERTIndex, name), threads))
    assert await store.async_add(nodes()) == ids(nodes())
    await store.adelete_nodes(["mars0"])
    await store.adelete("venus")
    assert sorted(ids(await store.aget_nodes())) == ["mars1", "mars2"]
    query = VectorStoreQuery(query_str="mars", similarity_top_k=2)
    results = await asyncio.gather(*(store.aquery(query) for _ in range(4)))
    assert threads
    assert threading.current_thread().name not in threads
    assert all(result.ids == store.query(query).ids for result in results)
    await store.aclear()
    assert len(store.index) == 0


def test_a_vector_store_index_over_it(store: ColBERTVectorStore) -> None:
    store.add(nodes())
    index = VectorStoreIndex.from_vector_store(store, embed_model=EMBEDDING)
    found = index.as_retriever(similarity_top_k=2, filters=RECENT).retrieve("mars")
    assert ids(found) == [hit.id for hit in store.index.search("mars", 2, where={"year": {"$gte": 2023}})]
    assert all(type(item.score) is float for item in found)
    answer = index.as_query_engine(llm=MockLLM(), similarity_top_k=1).query("mars")
    assert ids(answer.source_nodes) == [hit.id for hit in store.index.search("mars", 1)]
    index.insert(Document(doc_id="pluto", text="Pluto was a planet."))
    assert "Pluto was a planet." in texts(store)
    index.update_ref_doc(Document(doc_id="pluto", text="Pluto is a dwarf."))
    index.delete_ref_doc("mars")
    index.delete_nodes(["venus0"])
    assert texts(store) == ["Pluto is a dwarf.", "venus 1 of the planets", "venus 2 of the planets"]


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_its_own_vector_store_index_searches_by_the_texts_of_a_query(
    store: ColBERTVectorStore, colbert: ColBERTModel, mode: str
) -> None:
    index = store.as_index([TokenTextSplitter(chunk_size=40, chunk_overlap=0)])
    index.insert(Document(doc_id="mars", text=LONG))
    # What is not a text would restrict the retriever of LlamaIndex's own index to itself.
    index.insert_nodes([IndexNode(id_="pointer", text="See the appendix.", index_id="appendix"), *nodes()])
    retriever = index.as_retriever(similarity_top_k=3, filters=RECENT)

    async def retrieve(query: QueryBundle) -> list[tuple[str, float]]:
        found = retriever.retrieve(query) if mode == "sync" else await retriever.aretrieve(query)
        return [(item.node_id, item.score) for item in found]

    bundle = QueryBundle("nothing of the kind", custom_embedding_strs=["venus 2", "planets"])
    ours = ColBERTRetriever(store.index, similarity_top_k=3, filters=RECENT).retrieve(bundle)
    assert await retrieve(bundle) == [(item.node_id, item.score) for item in ours]
    assert (await retrieve(bundle))[0][0] == "venus2"
    assert len(await retrieve(QueryBundle("venus"))) == 3
    restricted = index.as_retriever(node_ids=["mars1", "venus1"]).retrieve(bundle)
    assert sorted(ids(restricted)) == ["mars1", "venus1"]
    assert "venus 2" in str(index.as_query_engine(llm=MockLLM(), similarity_top_k=9).query("venus 2"))
    assert "venus 2" in str(index.as_chat_engine(chat_mode="context", llm=MockLLM()).chat("venus 2").sources[0])
    with pytest.raises(InvalidInputError, match=r"\['score_threshold'\]"):
        index.as_retriever(score_threshold=1.0)


@pytest.mark.parametrize("texts_of_query", [None, ["venus 2", "planets"]])
async def test_a_score_threshold_of_the_retriever(store: ColBERTVectorStore, texts_of_query: list[str] | None) -> None:
    store.add(nodes())
    bundle = QueryBundle("venus 2", custom_embedding_strs=texts_of_query)
    every = ColBERTRetriever(store.index).retrieve(bundle)
    threshold = every[2].score
    assert threshold is not None
    expected = [item.node_id for item in every if item.score is not None and item.score >= threshold]
    retriever = ColBERTRetriever(store.index, score_threshold=threshold)
    assert ids(retriever.retrieve(bundle)) == ids(await retriever.aretrieve(bundle)) == expected
    assert 3 <= len(expected) < len(every)
    assert ids(ColBERTManagedIndex(store.index).as_retriever(score_threshold=threshold).retrieve(bundle)) == expected
    with pytest.raises(InvalidInputError, match="threshold"):
        ColBERTRetriever(store.index, score_threshold="high")  # type: ignore[arg-type]


async def test_async_of_a_vector_store_index(store: ColBERTVectorStore) -> None:
    store.add(nodes())
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=EMBEDDING).as_retriever(similarity_top_k=3)
    assert ids(await retriever.aretrieve("mars")) == ids(retriever.retrieve("mars"))


def test_a_storage_context_stores_there_and_persists_the_rest(store: ColBERTVectorStore, tmp_path: Path) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    documents = [Document(doc_id="mars", text="Mars is red."), Document(doc_id="venus", text="Venus is hot.")]
    index = VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=EMBEDDING)
    assert texts(store) == ["Mars is red.", "Venus is hot."]
    context.persist(tmp_path)
    assert ids(index.as_retriever().retrieve("mars")) == [hit.id for hit in store.index.search("mars", 2)]


@pytest.mark.parametrize("strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.UPSERTS_AND_DELETE])
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("use_async", [False, True])
def test_an_ingestion_pipeline_run_again(
    store: ColBERTVectorStore, strategy: DocstoreStrategy, split: bool, use_async: bool
) -> None:
    splitter = [TokenTextSplitter(chunk_size=40, chunk_overlap=0)] if split else []
    pipeline = IngestionPipeline(
        transformations=[*splitter, EMBEDDING],
        docstore=SimpleDocumentStore(),
        docstore_strategy=strategy,
        vector_store=store,
    )

    def run(**contents: str) -> None:
        documents = [Document(doc_id=name, text=text) for name, text in contents.items()]
        asyncio.run(pipeline.arun(documents=documents)) if use_async else pipeline.run(documents=documents)

    run(mars=LONG, price="The price is 10 euros.", old="This will go.")
    first = texts(store)
    assert len(first) > 3 if split else len(first) == 3
    run(mars=LONG, price="The price is 10 euros.", old="This will go.")
    assert texts(store) == first
    run(mars="Mars is red.", price="The price is 20 euros.")
    gone = [] if strategy is DocstoreStrategy.UPSERTS_AND_DELETE else ["This will go."]
    assert texts(store) == sorted(["Mars is red.", "The price is 20 euros.", *gone])


def test_the_store_is_written_as_the_path_of_its_index(store: ColBERTVectorStore, colbert: ColBERTModel) -> None:
    store.add(nodes())
    again = ColBERTVectorStore.from_dict(
        {**store.to_dict(), "index": {"path": store.to_dict()["index"], "model": colbert.options()}}
    )
    query = VectorStoreQuery(query_str="mars", similarity_top_k=3)
    assert again.query(query).ids == store.query(query).ids
    with pytest.raises(IndexReadOnlyError):
        again.add(nodes())
    assert again.client is again.index


def test_a_retriever_of_ours_reads_what_the_store_wrote(store: ColBERTVectorStore) -> None:
    from rerank_integrations.llama_index import ColBERTRetriever

    store.add(nodes())
    (found,) = ColBERTRetriever(store.index, similarity_top_k=1).retrieve(QueryBundle("mars"))
    assert found.node.to_dict() in [node.to_dict() for node in nodes()]
