"""Features of LlamaIndex alone: nodes, metadata modes, retrieval scores, query engines."""

from __future__ import annotations

import json
import sys
from typing import Any, get_args

import pytest
from corpus import QUERIES
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import Document, MetadataMode, NodeWithScore, QueryBundle, TextNode

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, InvalidInputError, Passage
from rerank_integrations.llama_index import ColBERTRerank, ColBERTRetriever, CrossEncoderRerank

QUERY = QUERIES[0]


class Spy:
    """Scores a text by its length, and keeps what it was shown."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def score(self, query: str, texts: list[str]) -> list[float]:
        self.texts = texts
        return [float(len(text)) for text in texts]


def test_a_node_is_the_passage(index: ColBERTIndex) -> None:
    hits = index.search(QUERY, 3)
    retrieved = ColBERTRetriever(index, similarity_top_k=3).retrieve(QUERY)
    assert [item.to_dict() for item in retrieved] == [
        NodeWithScore(node=TextNode(id_=hit.id, text=hit.text, metadata=dict(hit.metadata)), score=hit.score).to_dict()
        for hit in hits
    ]


def test_a_query_bundle_is_searched_by_its_texts(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index, similarity_top_k=5)

    def found(query: QueryBundle | str) -> list[tuple[str, float]]:
        return [(item.node_id, pytest.approx(item.score, abs=1e-3)) for item in retriever.retrieve(query)]

    assert found(QueryBundle(QUERY, custom_embedding_strs=[QUERIES[1]])) == found(QUERIES[1]) != found(QUERY)
    assert found(QueryBundle(QUERY, custom_embedding_strs=[" ", QUERY])) == found(QUERY)
    assert found(QueryBundle(QUERY, custom_embedding_strs=[])) == []
    with pytest.raises(InvalidInputError, match="custom_embedding_str number 0 is of type int"):
        found(QueryBundle(QUERY, custom_embedding_strs=[3]))  # type: ignore[list-item]
    scores: dict[str, float] = {}
    for query in QUERIES[:2]:
        for hit in index.search(query, 48):
            scores[hit.id] = scores.get(hit.id, 0.0) + hit.score / 2
    best = sorted(scores.items(), key=lambda item: -item[1])[:5]
    assert found(QueryBundle(QUERY, custom_embedding_strs=QUERIES[:2])) == best


async def test_a_hypothetical_document_decides(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index, similarity_top_k=3)
    engine = TransformQueryEngine(
        RetrieverQueryEngine.from_args(retriever, llm=MockLLM()),
        HyDEQueryTransform(llm=MockLLM(), include_original=False),
    )
    (written,) = HyDEQueryTransform(llm=MockLLM(), include_original=False).run(QUERY).embedding_strs
    expected = [item.node_id for item in retriever.retrieve(written)]
    for response in (engine.query(QUERY), await engine.aquery(QUERY)):
        assert [item.node_id for item in response.source_nodes] == expected


def test_a_stored_ref_doc_id_becomes_the_source_and_stays_out_of_texts(colbert: ColBERTModel) -> None:
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert([Passage("chunk", "Mars is red.", {"ref_doc_id": "book", "page": 3})])
        node = ColBERTRetriever(index).retrieve("Mars")[0].node
    assert node.ref_doc_id == "book"
    assert node.metadata == {"ref_doc_id": "book", "page": 3}
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert node.get_content(mode) == "page: 3\n\nMars is red."


def test_changed_nodes_leave_the_index_alone(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index, similarity_top_k=1)
    node = retriever.retrieve(QUERY)[0].node
    before = json.dumps(node.metadata)
    node.metadata["tags"].append("changed")
    assert json.dumps(retriever.retrieve(QUERY)[0].node.metadata) == before


def test_similarity_top_k_and_filters_may_be_set_later(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index)
    retriever.similarity_top_k = 2
    assert len(retriever.retrieve(QUERY)) == 2
    retriever.similarity_top_k = -2
    with pytest.raises(InvalidInputError, match="is -2"):
        retriever.retrieve(QUERY)


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        (None, "Mars is red."),
        (MetadataMode.NONE, "Mars is red."),
        (MetadataMode.EMBED, "page: 3\n\nMars is red."),
        (MetadataMode.LLM, "author: Ada\n\nMars is red."),
        (MetadataMode.ALL, "page: 3\nauthor: Ada\n\nMars is red."),
        ("embed", "page: 3\n\nMars is red."),
        ("llm", "author: Ada\n\nMars is red."),
    ],
)
def test_metadata_mode_decides_the_scored_text(mode: MetadataMode | str | None, shown: str) -> None:
    node = TextNode(
        text="Mars is red.",
        metadata={"page": 3, "author": "Ada"},
        excluded_embed_metadata_keys=["author"],
        excluded_llm_metadata_keys=["page"],
    )
    spy = Spy()
    kwargs: dict[str, Any] = {} if mode is None else {"metadata_mode": mode}
    CrossEncoderRerank(spy, **kwargs).postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    assert spy.texts == [shown]


@pytest.mark.parametrize("component", [CrossEncoderRerank, ColBERTRerank])
def test_a_type_checker_takes_each_metadata_mode_by_its_name(component: type) -> None:
    annotation = component.__init__.__annotations__["metadata_mode"]  # type: ignore[misc]
    kind, names = get_args(eval(annotation, vars(sys.modules[component.__module__])))
    assert kind is MetadataMode
    assert set(get_args(names)) == {mode.value for mode in MetadataMode}


def test_by_default_the_text_that_is_indexed_is_scored(index: ColBERTIndex, passages: list[Passage]) -> None:
    retrieved = ColBERTRetriever(index, similarity_top_k=48).retrieve(QUERY)
    spy = Spy()
    CrossEncoderRerank(spy).postprocess_nodes(retrieved, query_str=QUERY)
    assert sorted(spy.texts) == sorted(passage.text for passage in passages)


def test_nodes_come_back_as_copies_and_unscored_ones_are_welcome() -> None:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("1", "333", "22")]
    ranked = CrossEncoderRerank(Spy(), top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    assert [item.node_id for item in ranked] == [nodes[1].node_id, nodes[2].node_id]
    assert [item.node.metadata for item in ranked] == [
        {"relevance_score": 3.0, "relevance_rank": 1, "retrieval_rank": 2, "score_scale": "own"},
        {"relevance_score": 2.0, "relevance_rank": 2, "retrieval_rank": 3, "score_scale": "own"},
    ]
    assert [item.node.metadata for item in nodes] == [{}, {}, {}]
    assert [item.score for item in nodes] == [None, None, None]


def test_retrieval_score_is_kept_and_shown_to_nobody() -> None:
    node = TextNode(text="Mars is red.", metadata={"page": 3}, excluded_llm_metadata_keys=["page"])
    original = NodeWithScore(node=node, score=0.25)
    before = original.to_json()
    ranked = CrossEncoderRerank(Spy(), keep_retrieval_score=True).postprocess_nodes([original], query_str=QUERY)[0]
    assert ranked.score == 12.0
    assert ranked.node.metadata == {
        "page": 3,
        "relevance_score": 12.0,
        "relevance_rank": 1,
        "retrieval_score": 0.25,
        "retrieval_rank": 1,
        "score_scale": "own",
    }
    for mode in (MetadataMode.LLM, MetadataMode.EMBED, MetadataMode.NONE):
        assert ranked.node.get_content(mode) == node.get_content(mode)
    assert (ranked.node.node_id, type(ranked.node)) == (node.node_id, TextNode)
    assert original.to_json() == before


def test_two_rerankers_keep_both_earlier_scores() -> None:
    original = NodeWithScore(node=Document(text="Mars is red."), score=0.25)
    reranker = CrossEncoderRerank(Spy(), keep_retrieval_score=True)
    twice = reranker.postprocess_nodes(reranker.postprocess_nodes([original], query_str=QUERY), query_str=QUERY)[0]
    scores = {key: value for key, value in twice.node.metadata.items() if key.endswith("_score")}
    assert scores == {
        "relevance_score": 12.0,
        "retrieval_score": 12.0,
        "previous_relevance_score": 12.0,
        "previous_retrieval_score": 0.25,
    }
    assert twice.node.get_content(MetadataMode.LLM) == "Mars is red."
    assert isinstance(twice.node, Document)


def test_missing_query_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="query is ''"):
        CrossEncoderRerank(Spy()).postprocess_nodes([NodeWithScore(node=TextNode(text="1"))])


def test_a_text_in_the_place_of_a_query_bundle_is_an_error() -> None:
    nodes = [NodeWithScore(node=TextNode(text="1"))]
    with pytest.raises(
        InvalidInputError, match="query_bundle is of type str; expected QueryBundle, or text as query_str"
    ):
        CrossEncoderRerank(Spy()).postprocess_nodes(nodes, "a text")  # type: ignore[arg-type]
    assert CrossEncoderRerank(Spy()).postprocess_nodes(nodes, query_str="a text")


async def test_in_a_query_engine(index: ColBERTIndex, colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> None:
    postprocessors: list[Any] = [ColBERTRerank(colbert, index, top_n=6), CrossEncoderRerank(cross_encoder, top_n=2)]
    engine = RetrieverQueryEngine(
        retriever=ColBERTRetriever(index),
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        node_postprocessors=postprocessors,
    )
    response = engine.query(QUERY)
    assert len(response.source_nodes) == 2
    assert [item.node_id for item in (await engine.aquery(QUERY)).source_nodes] == [
        item.node_id for item in response.source_nodes
    ]
    assert all(item.node.get_content() in str(response) for item in response.source_nodes)


def test_from_dict_takes_what_to_dict_gives(colbert: ColBERTModel, index: ColBERTIndex) -> None:
    reranker = ColBERTRerank(colbert, index, top_n=None, keep_retrieval_score=True, metadata_mode=MetadataMode.EMBED)
    back = ColBERTRerank.from_dict(reranker.to_dict())
    assert back.to_dict() == reranker.to_dict()
    assert reranker.to_dict() == {
        "model": colbert.options(),
        "index": str(index.path.resolve()),
        "top_n": None,
        "keep_retrieval_score": True,
        "metadata_mode": MetadataMode.EMBED,
        "score_threshold": None,
        "window": None,
        "stride": None,
        "strict": False,
        "scale": "sum",
        "max_candidates": None,
        "calibration": None,
        "cache_bytes": 128 * 2**20,
        "scores_in_metadata": True,
        "class_name": "ColBERTRerank",
    }
