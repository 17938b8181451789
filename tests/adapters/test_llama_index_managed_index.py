"""The managed index keeps documents for their whole life, in a new process too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import BaseNode, NodeRelationship, TextNode, TransformComponent
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from toy import Floats, ToyEncoder

from rerank_integrations import ColBERTIndex, ColBERTModel, InvalidInputError, Passage
from rerank_integrations.llama_index import ColBERTManagedIndex, ColBERTRetriever, ColBERTVectorStore

LONG = "Mars is the fourth planet, and it is red. Its two moons are small. " * 3
SPLIT = [TokenTextSplitter(chunk_size=20, chunk_overlap=0)]


def documents(**texts: str) -> list[Document]:
    return [Document(doc_id=name, text=text, metadata={"name": name}) for name, text in texts.items()]


@pytest.fixture
def managed(colbert: ColBERTModel, tmp_path: Path) -> Iterator[ColBERTManagedIndex]:
    created = ColBERTManagedIndex.from_documents(
        documents(mars=LONG, venus="Venus is hot."), colbert, tmp_path / "planets", SPLIT
    )
    with created.index:
        yield created


def texts(managed: ColBERTManagedIndex) -> list[str]:
    return sorted(passage.text for passage in managed.index.get(where={}))


def ids(found: Any) -> list[str]:
    return [item.node_id for item in found]


def test_documents_are_inserted_updated_and_deleted(managed: ColBERTManagedIndex) -> None:
    info = managed.ref_doc_info
    assert {name: entry.metadata for name, entry in info.items()} == {
        "mars": {"name": "mars"},
        "venus": {"name": "venus"},
    }
    assert sorted(node_id for entry in info.values() for node_id in entry.node_ids) == sorted(managed.index.ids())
    assert len(info["mars"].node_ids) > 1
    managed.insert(documents(pluto="Pluto was a planet.")[0])
    managed.update_ref_doc(documents(mars="Mars is red.")[0])
    managed.insert(documents(pluto="Pluto is a dwarf.")[0])
    assert texts(managed) == ["Mars is red.", "Pluto is a dwarf.", "Venus is hot."]
    managed.delete_ref_doc("venus", delete_from_docstore=True)
    managed.insert_nodes([TextNode(id_="node", text="A node")])
    assert texts(managed) == ["A node", "Mars is red.", "Pluto is a dwarf."]
    managed.delete_nodes(["node"])
    assert sorted(managed.ref_doc_info) == ["mars", "pluto"]


def test_a_managed_index_that_pools_tokens(colbert: ColBERTModel) -> None:
    pooling = ColBERTManagedIndex.from_documents(documents(mars=LONG), colbert, pool_factor=2)
    with pooling.index as pooled, ColBERTManagedIndex.from_documents(documents(mars=LONG), colbert).index as whole:
        assert pooled.pool_factor == 2.0
        assert pooled.stats().tokens == 1 + (whole.stats().tokens - 1) // 2


def test_refreshing_encodes_what_changed_in_a_new_object_too(
    managed: ColBERTManagedIndex, colbert: ColBERTModel, tmp_path: Path
) -> None:
    before = sorted(managed.index.ids())
    same = documents(mars=LONG, venus="Venus is hot.")
    assert managed.refresh_ref_docs(same) == [False, False]
    managed.index.close()
    with ColBERTManagedIndex.from_documents(same, colbert, tmp_path / "planets", SPLIT).index as index:
        assert sorted(index.ids()) == before
        again = ColBERTManagedIndex(index, transformations=list(SPLIT))
        assert again.refresh_ref_docs(documents(mars=LONG, venus="Venus is bright.", pluto="Pluto")) == [
            False,
            True,
            True,
        ]
        assert [text for text in texts(again) if "Mars" not in text and "moons" not in text] == [
            "Pluto",
            "Venus is bright.",
        ]


def test_a_document_without_nodes_is_refreshed_once(managed: ColBERTManagedIndex) -> None:
    assert managed.refresh_ref_docs(documents(blank=" \n ")) == [False]
    assert managed.refresh_ref_docs(documents(venus=" ")) == [True]
    assert managed.refresh_ref_docs(documents(venus=" ")) == [False]
    assert "venus" not in managed.ref_doc_info


def test_without_a_splitter_a_document_is_its_own_node(colbert: ColBERTModel) -> None:
    class Nothing(TokenTextSplitter):
        def __call__(self, nodes: Any, **kwargs: Any) -> Any:
            return nodes

    managed = ColBERTManagedIndex.from_documents(documents(mars="Mars"), colbert, transformations=[Nothing()])
    with managed.index:
        assert managed.refresh_ref_docs(documents(mars="Mars")) == [False]
        assert managed.refresh_ref_docs(documents(mars="Mars is red.")) == [True]
        assert {name: info.node_ids for name, info in managed.ref_doc_info.items()} == {"mars": ["mars"]}
        managed.delete_ref_doc("mars")
        assert len(managed.index) == 0


def test_old_nodes_stay_when_new_ones_cannot_be_stored(managed: ColBERTManagedIndex) -> None:
    before = texts(managed)
    with pytest.raises(InvalidInputError, match="which is reserved"):
        managed.update_ref_doc(Document(doc_id="mars", text="a", metadata={"_rerank_integrations_node": 1}))
    assert texts(managed) == before


def test_retriever_and_engines(managed: ColBERTManagedIndex) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="name", value="mars")])
    retriever = managed.as_retriever(similarity_top_k=2, filters=filters)
    assert isinstance(retriever, ColBERTRetriever)
    expected = [hit.id for hit in managed.index.search("planet", 2, where={"name": "mars"})]
    assert ids(retriever.retrieve("planet")) == expected
    engine = managed.as_query_engine(llm=MockLLM(), similarity_top_k=2, filters=filters, response_mode="compact")
    assert ids(engine.query("planet").source_nodes) == expected
    chat = managed.as_chat_engine("context", llm=MockLLM(), system_prompt="Be brief.", similarity_top_k=1)  # type: ignore[arg-type]
    assert ids(chat.chat("planet").source_nodes) == [managed.index.search("planet", 1)[0].id]


@pytest.mark.parametrize(
    "call",
    [
        lambda managed: managed.as_retriever(similarty_top_k=3),
        lambda managed: managed.as_query_engine(llm=MockLLM(), similarty_top_k=3),
        lambda managed: managed.insert(documents(a="b")[0], similarty_top_k=3),
        lambda managed: managed.update_ref_doc(documents(a="b")[0], similarty_top_k=3),
        lambda managed: managed.refresh_ref_docs(documents(a="b"), similarty_top_k=3),
        lambda managed: managed.delete_ref_doc("mars", similarty_top_k=3),
    ],
)
def test_unknown_arguments_are_refused_by_name(
    managed: ColBERTManagedIndex, call: Callable[[ColBERTManagedIndex], object]
) -> None:
    before = texts(managed)
    with pytest.raises(InvalidInputError, match="similarty_top_k"):
        call(managed)
    assert texts(managed) == before


async def test_async_does_the_same_on_other_threads(
    managed: ColBERTManagedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    plain = ColBERTIndex.upsert

    def upsert(*args: Any, **kwargs: Any) -> Any:
        threads.add(threading.current_thread().name)
        return plain(*args, **kwargs)

    monkeypatch.setattr(ColBERTIndex, "upsert", upsert)
    await managed.ainsert(documents(pluto="Pluto was a planet.")[0])
    await managed.aupdate_ref_doc(documents(mars="Mars is red.")[0])
    assert await managed.arefresh_ref_docs(documents(venus="Venus is hot.", pluto="Pluto")) == [False, True]
    await managed.ainsert_nodes([TextNode(id_="node", text="A node")])
    assert texts(managed) == ["A node", "Mars is red.", "Pluto", "Venus is hot."]
    await managed.adelete_ref_doc("venus")
    await managed.adelete_nodes(["node"])
    assert texts(managed) == ["Mars is red.", "Pluto"]
    assert threads
    assert threading.current_thread().name not in threads


# --- changes that are cut short, made at once, or of what is no node ---


class OneNodePerWord(TransformComponent):
    """Split a document into a node per word."""

    def __call__(self, nodes: Sequence[BaseNode], **_: Any) -> list[BaseNode]:
        return [
            TextNode(text=word, relationships={NodeRelationship.SOURCE: node.as_related_node_info()})
            for node in nodes
            for word in node.get_content().split()
        ]


class FailingEncoder(ToyEncoder):
    """Fail at texts with `word`, as an encoder without memory does."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word: str | None = word

    def encode_documents(self, texts: Sequence[str], show_progress: bool | None = None) -> list[Floats]:
        if self.word in texts:
            raise OSError("out of memory")
        return super().encode_documents(texts, show_progress)


def test_a_document_that_was_stored_in_part_is_refreshed() -> None:
    encoder = FailingEncoder("w299")
    managed = ColBERTManagedIndex.from_documents([], encoder, transformations=[OneNodePerWord()])
    long = Document(doc_id="long", text=" ".join(f"w{number}" for number in range(300)))
    with managed.index:
        with pytest.raises(OSError, match="out of memory"):
            managed.refresh_ref_docs([long])
        encoder.word = None
        assert managed.refresh_ref_docs([long]) == [True]
        assert len(managed.index) == 300
        assert managed.refresh_ref_docs([long]) == [False]


def test_updates_of_one_document_at_once_leave_one_version() -> None:
    managed = ColBERTManagedIndex.from_documents([], ToyEncoder(), transformations=[OneNodePerWord()])
    versions = [Document(doc_id="d", text=f"version{number} word") for number in range(8)]

    async def update() -> None:
        await asyncio.gather(*(managed.aupdate_ref_doc(version) for version in versions))

    with managed.index:
        asyncio.run(update())
        assert len(managed.index) == 2
        assert managed.refresh_ref_docs(versions).count(False) <= 1


def test_passages_that_were_no_nodes_stay_apart() -> None:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([Passage("plain", "a passage", {}), Passage("of", "another", {"ref_doc_id": "source"})])
        managed = ColBERTManagedIndex(index, transformations=[OneNodePerWord()])
        store = ColBERTVectorStore(index)
        store.add([TextNode(id_="node", text="no source")])
        assert {name: info.node_ids for name, info in managed.ref_doc_info.items()} == {
            "source": ["of"],
            "node": ["node"],
        }
        with pytest.raises(InvalidInputError, match="ref_doc_id is None"):
            managed.delete_ref_doc(TextNode(text="no source").ref_doc_id)  # type: ignore[arg-type]
        assert len(index) == 3
        managed.delete_ref_doc("node")
        assert sorted(index.ids()) == ["of", "plain"]


@pytest.mark.parametrize("wrong", [None, "a text", 7])
def test_anything_but_a_document_is_refused(managed: ColBERTManagedIndex, wrong: Any) -> None:
    for change in (managed.insert, managed.update_ref_doc, lambda document: managed.refresh_ref_docs([document])):
        with pytest.raises(InvalidInputError, match="expected a Document"):
            change(wrong)


def test_a_document_whose_metadata_a_transformation_changes_is_stored_once() -> None:
    class Titled(TransformComponent):
        def __call__(self, nodes: Sequence[BaseNode], **_: Any) -> Sequence[BaseNode]:
            for node in nodes:
                node.metadata["title"] = "given by a transformation"
            return nodes

    managed = ColBERTManagedIndex.from_documents([], ToyEncoder(), transformations=[Titled()])
    with managed.index:
        fresh = [Document(doc_id="d", text="a text") for _ in range(2)]
        assert [managed.refresh_ref_docs([document]) for document in fresh] == [[True], [False]]


@pytest.mark.parametrize("wrong", [None, "a text", 7, Document(text="not in a list")])
def test_anything_but_a_list_is_refused(managed: ColBERTManagedIndex, tmp_path: Path, wrong: Any) -> None:
    before = texts(managed)
    for change in (managed.refresh_ref_docs, managed.insert_nodes, ColBERTVectorStore(managed.index).add):
        with pytest.raises(InvalidInputError, match="expected a list"):
            change(wrong)
    with pytest.raises(InvalidInputError, match="expected a list"):
        ColBERTManagedIndex.from_documents(wrong, ToyEncoder(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert texts(managed) == before
