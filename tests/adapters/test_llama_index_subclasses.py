"""Classes that derive from the components, or from what they are given, mean in every call what they say."""

from __future__ import annotations

from typing import Any

import pytest
from corpus import QUERIES
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryResult

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, InvalidInputError, Ranked
from rerank_integrations.llama_index import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    ColBERTVectorStore,
    CrossEncoderRerank,
)

QUERY = QUERIES[0]


class Highlighted(NodeWithScore):
    """A node of an application, with a field of its own."""

    highlight: str = ""


class OwnText(TextNode):
    """A node with a field of its own."""

    shelf: int = 0


class Reversed(CrossEncoderRerank):
    def _postprocess_nodes(self, nodes: Any, query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        return list(nodes)[::-1]


class LastFirst(CrossEncoderRerank):
    def _rank(self, query: str, nodes: list[NodeWithScore]) -> list[Ranked]:  # type: ignore[override]
        return [Ranked(len(nodes) - 1, 7.0, {"retrieval_rank": len(nodes)})]


class Doubled(ColBERTRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [found.model_copy(update={"score": 2.0}) for found in super()._retrieve(query_bundle)]


class Silent(ColBERTVectorStore):
    def query(self, query: VectorStoreQuery, **kwargs: object) -> VectorStoreQueryResult:
        return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])


def nodes() -> list[NodeWithScore]:
    return [
        Highlighted(node=OwnText(id_=str(number), text=text, shelf=number), score=0.5, highlight=text[:3])
        for number, text in enumerate(("Mars is red.", "A zip file.", "Rain."))
    ]


async def test_what_overrides_the_synchronous_method_is_honoured_in_async(
    index: ColBERTIndex, cross_encoder: CrossEncoderModel
) -> None:
    reranked = await Reversed(cross_encoder).apostprocess_nodes(nodes(), query_str=QUERY)
    assert [found.node.node_id for found in reranked] == ["2", "1", "0"]
    (last,) = await LastFirst(cross_encoder).apostprocess_nodes(nodes(), query_str=QUERY)
    assert (last.node.node_id, last.score) == ("2", 7.0)
    retrieved = await Doubled(index, similarity_top_k=2).aretrieve(QUERY)
    assert [found.score for found in retrieved] == [2.0, 2.0]
    assert (await Silent(index).aquery(VectorStoreQuery(query_str=QUERY))).ids == []


@pytest.mark.parametrize("kind", [Reversed, LastFirst])
def test_a_cascade_refuses_a_stage_whose_own_ranking_it_would_pass_over(
    cross_encoder: CrossEncoderModel, kind: type[CrossEncoderRerank]
) -> None:
    with pytest.raises(InvalidInputError, match=kind.__name__):
        CascadeRerank([kind(cross_encoder)])


def test_a_cascade_takes_a_subclass_that_ranks_as_its_base(cross_encoder: CrossEncoderModel) -> None:
    class Named(CrossEncoderRerank):
        @classmethod
        def class_name(cls) -> str:
            return "Named"

    assert len(CascadeRerank([Named(cross_encoder)]).postprocess_nodes(nodes(), query_str=QUERY)) == 3


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_nodes_of_a_class_of_ones_own_come_back_as_it(
    colbert: ColBERTModel, cross_encoder: CrossEncoderModel, mode: str
) -> None:
    stages = [ColBERTRerank(colbert), CrossEncoderRerank(cross_encoder)]
    for reranker in (*stages, CascadeRerank(stages)):
        if mode == "sync":
            ranked = reranker.postprocess_nodes(nodes(), query_str=QUERY)
        else:
            ranked = await reranker.apostprocess_nodes(nodes(), query_str=QUERY)
        assert len(ranked) == 3
        for found in ranked:
            assert isinstance(found, Highlighted)
            assert isinstance(found.node, OwnText)
            assert found.highlight == found.node.text[:3]
            assert found.node.shelf == int(found.node.node_id)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_top_n_of_one_call(colbert: ColBERTModel, cross_encoder: CrossEncoderModel, mode: str) -> None:
    async def kept(reranker: Any, **options: Any) -> int:
        if mode == "sync":
            return len(reranker.postprocess_nodes(nodes(), query_str=QUERY, **options))
        return len(await reranker.apostprocess_nodes(nodes(), query_str=QUERY, **options))

    stages = [ColBERTRerank(colbert), CrossEncoderRerank(cross_encoder)]
    for reranker in (*stages, CascadeRerank(stages, top_n=1)):
        own = await kept(reranker)
        assert [await kept(reranker, top_n=top_n) for top_n in (2, None, 0)] == [2, 3, 0]
        assert await kept(reranker) == own
        with pytest.raises(InvalidInputError, match="top_n is -1"):
            await kept(reranker, top_n=-1)
        with pytest.raises(TypeError, match="topn"):
            await kept(reranker, topn=2)
    # What an override does not take is refused, not dropped.
    for overriding in (Reversed(cross_encoder), LastFirst(cross_encoder)):
        with pytest.raises(TypeError, match="top_n"):
            await kept(overriding, top_n=1)
