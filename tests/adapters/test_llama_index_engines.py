"""LlamaIndex's engines that follow a node's relationships and windows work on nodes from an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from llama_index.core import Document, SimpleDirectoryReader, StorageContext
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    SentenceWindowNodeParser,
    TokenTextSplitter,
    get_leaf_nodes,
)
from llama_index.core.postprocessor import MetadataReplacementPostProcessor, PrevNextNodePostprocessor
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.retrievers import AutoMergingRetriever, RecursiveRetriever
from llama_index.core.schema import BaseNode, IndexNode, MetadataMode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.llama_index import ColBERTRetriever, ColBERTVectorStore

SENTENCES = [
    "zipfile reads one member of an archive.",
    "csv goes through the rows of a table.",
    "tarfile unpacks an archive.",
]
TEXT = " ".join(SENTENCES)
QUERY = "open an archive"


@pytest.fixture
def index(colbert: ColBERTModel) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, colbert) as created:
        yield created


def retriever_of(index: ColBERTIndex, nodes: Sequence[BaseNode], k: int | None = None) -> ColBERTRetriever:
    ColBERTVectorStore(index).add(nodes)
    return ColBERTRetriever(index, similarity_top_k=len(nodes) if k is None else k)


def sentences(text: str) -> list[str]:
    return [f"{sentence.strip()}. " for sentence in text.split(".") if sentence.strip()]


def test_auto_merging_returns_the_parents(index: ColBERTIndex) -> None:
    sizes = [64, 16]
    parser = HierarchicalNodeParser.from_defaults(
        node_parser_ids=[str(size) for size in sizes],
        node_parser_map={str(size): TokenTextSplitter(chunk_size=size, chunk_overlap=0) for size in sizes},
    )
    tree = parser.get_nodes_from_documents([Document(text=TEXT)])
    leaves = get_leaf_nodes(tree)
    storage = StorageContext.from_defaults()
    storage.docstore.add_documents(tree)
    merged = AutoMergingRetriever(retriever_of(index, leaves), storage).retrieve(QUERY)
    (parent,) = [node for node in tree if node.parent_node is None]
    assert len(leaves) > 1
    assert [item.node_id for item in merged] == [parent.node_id]


def test_previous_and_next_nodes_are_added(index: ColBERTIndex) -> None:
    nodes = TokenTextSplitter(chunk_size=12, chunk_overlap=0).get_nodes_from_documents([Document(text=TEXT)])
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes)
    found = retriever_of(index, nodes, k=1).retrieve(QUERY)
    neighbours = PrevNextNodePostprocessor(docstore=docstore, num_nodes=1, mode="both").postprocess_nodes(found)
    position = [node.node_id for node in nodes].index(found[0].node_id)
    assert len(nodes) > 2
    assert [item.node_id for item in neighbours] == [
        node.node_id for node in nodes[max(0, position - 1) : position + 2]
    ]


def test_a_sentence_window_is_hidden_until_it_replaces_the_sentence(index: ColBERTIndex) -> None:
    nodes = SentenceWindowNodeParser.from_defaults(sentence_splitter=sentences, window_size=1).get_nodes_from_documents(
        [Document(text=TEXT)]
    )
    (found,) = retriever_of(index, nodes, k=1).retrieve("rows of a table")
    (original,) = [node for node in nodes if node.node_id == found.node_id]
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert found.node.get_content(mode) == original.get_content(MetadataMode.NONE)
    (shown,) = MetadataReplacementPostProcessor(target_metadata_key="window").postprocess_nodes([found])
    assert shown.node.get_content(MetadataMode.LLM) == original.metadata["window"]


def test_citations_name_their_sources(index: ColBERTIndex) -> None:
    documents = [
        Document(doc_id=name, text=text, metadata={"file": name, "acl": "SECRET"}, excluded_llm_metadata_keys=["acl"])
        for name, text in zip(("zip", "csv", "tar"), SENTENCES, strict=True)
    ]
    splitter = TokenTextSplitter(chunk_size=64, chunk_overlap=0)
    retriever = retriever_of(index, splitter.get_nodes_from_documents(documents), k=2)
    engine = CitationQueryEngine.from_args(
        None,  # type: ignore[arg-type]
        llm=MockLLM(),
        retriever=retriever,
        text_splitter=splitter,
    )
    response = engine.query(QUERY)
    expected = [item.node.ref_doc_id for item in retriever.retrieve(QUERY)]
    assert [item.node.ref_doc_id for item in response.source_nodes] == expected
    assert [item.node.metadata["file"] for item in response.source_nodes] == expected
    assert "Source 1:" in str(response)
    assert "SECRET" not in str(response)


def test_excluded_keys_of_a_directory_reader_stay_out_of_the_prompt(index: ColBERTIndex, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    read = SimpleDirectoryReader(str(tmp_path)).load_data()
    engine = RetrieverQueryEngine.from_args(retriever_of(index, read), llm=MockLLM())
    answer = str(engine.query(QUERY))
    assert f"file_path: {tmp_path / 'a.txt'}\n\n{TEXT}" in answer
    assert "file_size" not in answer


def test_a_recursive_retriever_follows_index_nodes(index: ColBERTIndex) -> None:
    retriever = retriever_of(index, [IndexNode(text=SENTENCES[0], index_id="whole")])
    whole = TextNode(id_="whole", text=TEXT)
    recursive = RecursiveRetriever("root", retriever_dict={"root": retriever}, node_dict={"whole": whole})
    assert [item.node_id for item in recursive.retrieve(QUERY)] == ["whole"]
