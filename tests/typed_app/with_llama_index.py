"""An application with LlamaIndex: every component, checked by types."""

from __future__ import annotations

from pathlib import Path

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.docstore.types import RefDocInfo
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from typing_extensions import assert_type

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Explanation, Passage
from rerank_integrations.llama_index import (
    CascadeRerank,
    ColBERTManagedIndex,
    ColBERTRerank,
    ColBERTRetriever,
    ColBERTVectorStore,
    CrossEncoderRerank,
    node_to_passage,
)

LIBRARY = [
    Passage("zipfile", "ZipFile.read returns one member without extracting the archive.", {"topic": "files"}),
    Passage("csv", "csv.reader goes through the rows of comma-separated values.", {"topic": "files"}),
    Passage("heapq", "heapq.nlargest returns the n largest elements of a data set.", {"topic": "data"}),
]
QUESTION = "how do I read one file of an archive?"


class SharedWords:
    """A scorer of the user's own: how many words of the query a text contains."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        words = set(query.lower().split())
        return [float(len(words & set(text.lower().split()))) for text in texts]


def rerank(nodes: list[NodeWithScore], index: ColBERTIndex) -> list[NodeWithScore]:
    colbert = ColBERTRerank(index=index, top_n=3, keep_retrieval_score=True, score_threshold=0.0, scale="sum")
    cross_encoder = CrossEncoderRerank(CrossEncoderModel("starter"), top_n=2, metadata_mode=MetadataMode.EMBED)
    assert_type(colbert.score(QUESTION, ["one text"]), list[float])
    assert_type(colbert.explain(QUESTION, nodes[0]), Explanation)
    postprocessors: list[BaseNodePostprocessor] = [colbert, cross_encoder]
    for postprocessor in postprocessors:
        assert_type(postprocessor.postprocess_nodes(nodes, query_str=QUESTION), list[NodeWithScore])
    assert_type(colbert.postprocess_nodes(iter(nodes), query_str=QUESTION, top_n=None), list[NodeWithScore])
    cascade = CascadeRerank([colbert, cross_encoder], top_n=1, time_budget=30.0)
    return cascade.postprocess_nodes(nodes, query_bundle=QueryBundle(QUESTION))


def documented_forms(nodes: list[NodeWithScore], folder: Path) -> list[BaseNodePostprocessor]:
    """Every form of an argument that the documentation names."""
    model = ColBERTModel("starter")
    index = ColBERTIndex.open_or_create(folder / "forms", model)
    index.close()
    arguments = {"name_or_path": "starter", "dtype": "float32"}
    rerankers: list[BaseNodePostprocessor] = [
        CrossEncoderRerank("starter", metadata_mode="embed"),
        CrossEncoderRerank(model="starter", top_n=3, metadata_mode="all"),
        CrossEncoderRerank(SharedWords(), metadata_mode="none"),
        CrossEncoderRerank(arguments, cross_encoder_kwargs={"revision": None}),
        ColBERTRerank(model, metadata_mode="llm"),
        ColBERTRerank(arguments),
        ColBERTRerank(index=str(folder / "forms")),
        ColBERTRerank(index=folder / "forms"),
        ColBERTRerank(index={"path": folder / "forms", "model": "starter"}),
    ]
    for reranker in rerankers[:3]:
        assert len(reranker.postprocess_nodes(nodes, query_str=QUESTION)) == len(nodes)
    splitters = [TokenTextSplitter(chunk_size=64, chunk_overlap=0)]
    ColBERTManagedIndex({"path": folder / "forms", "model": arguments}, transformations=splitters)
    vector_index = ColBERTVectorStore(folder / "forms").as_index(splitters)
    assert_type(vector_index, VectorStoreIndex)
    ColBERTRetriever(folder / "forms", 3, MetadataFilters(filters=[]))
    return rerankers


def store_nodes(index: ColBERTIndex) -> None:
    node = TextNode(id_="tarfile", text="tarfile unpacks an archive.")
    assert_type(node_to_passage(node), Passage)
    store = ColBERTVectorStore(index)
    assert_type(store.add([node]), list[str])
    assert_type(store.get_nodes(["tarfile"]), list[BaseNode])
    assert store.query(VectorStoreQuery(query_str=QUESTION, node_ids=["tarfile"])).ids == ["tarfile"]
    store.delete_nodes(["tarfile"])


def keep_documents(folder: Path) -> None:
    document = Document(doc_id="gzip", text="gzip reads one compressed file.")
    splitter = TokenTextSplitter(chunk_size=64, chunk_overlap=0)
    managed = ColBERTManagedIndex.from_documents([document], "starter", folder / "documents", [splitter])
    assert_type(managed, ColBERTManagedIndex)
    assert_type(managed.refresh_ref_docs([document]), list[bool])
    assert_type(managed.ref_doc_info, dict[str, RefDocInfo])
    assert_type(managed.as_retriever(similarity_top_k=1), ColBERTRetriever)
    managed.index.close()


def main(folder: Path) -> None:
    with ColBERTIndex.create(folder / "index", ColBERTModel("starter")) as index:
        index.upsert(LIBRARY)
        store_nodes(index)
        about_files = MetadataFilters(filters=[MetadataFilter(key="topic", value="files")])
        retriever = ColBERTRetriever(index, similarity_top_k=3, filters=about_files)
        nodes = retriever.retrieve(QUESTION)
        assert_type(nodes, list[NodeWithScore])
        assert_type(retriever.index, ColBERTIndex)
        assert len(rerank(nodes, index)) == 1
        assert documented_forms(nodes, folder)
        by_name = ColBERTRerank("starter", top_n=2, device="cpu")
        engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), node_postprocessors=[by_name])
        assert "ZipFile.read" in str(engine.query(QUESTION))
    keep_documents(folder)
