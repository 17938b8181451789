"""LlamaIndex's components in the suites: ours and the incumbents."""

from __future__ import annotations

import functools
from typing import Any

from conformance_parts.models import FLASHRANK, Hook, HookedEncoder, HookedScorer, LetterEmbedding, Models, calling
from rerank_integrations import ColBERTIndex
from rerank_integrations.llama_index import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    CrossEncoderRerank,
    node_to_passage,
)
from rerank_integrations.testing import LlamaIndexRerankerConformance, LlamaIndexRetrieverConformance


class Reranker(LlamaIndexRerankerConformance):
    def __init__(self, models: Models) -> None:
        self.models = models


class OurColBERT(Reranker):
    label = "`ColBERTRerank`"

    def reranker(self, **options: Any) -> Any:
        return ColBERTRerank(self.models.colbert, **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        return ColBERTRerank(HookedEncoder(hook))


class OurCrossEncoder(Reranker):
    label = "`CrossEncoderRerank`"

    def reranker(self, **options: Any) -> Any:
        return CrossEncoderRerank(self.models.cross_encoder, **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        return CrossEncoderRerank(HookedScorer(hook))


class OurCascade(Reranker):
    label = "`CascadeRerank`"

    def reranker(self, **options: Any) -> Any:
        first = ColBERTRerank(self.models.colbert, top_n=None)
        return CascadeRerank([first, CrossEncoderRerank(self.models.cross_encoder, top_n=None)], **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        return CascadeRerank([CrossEncoderRerank(HookedScorer(hook))])


class SentenceTransformer(Reranker):
    label = "`SentenceTransformerRerank` (llama-index-core)"

    def reranker(self, **options: Any) -> Any:
        from llama_index.core.postprocessor import SentenceTransformerRerank

        return SentenceTransformerRerank(model=self.models.cross_encoder_path, device="cpu", **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        component = self.reranker()
        component._model.predict = calling(hook, component._model.predict)
        return component


class Colbert(Reranker):
    label = "`ColbertRerank` (llama-index-postprocessor-colbert-rerank)"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        from llama_index.postprocessor.colbert_rerank import ColbertRerank

        self.kind = ColbertRerank

    def reranker(self, **options: Any) -> Any:
        path = self.models.encoder_path
        return self.kind(model=path, tokenizer=path, device="cpu", **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        component = self.reranker()
        component._model.forward = calling(hook, component._model.forward)
        return component


class FlashRank(Reranker):
    label = "`FlashRankRerank` (llama-index-postprocessor-flashrank-rerank)"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        from flashrank import Ranker
        from llama_index.postprocessor.flashrank_rerank import base

        # It looks for models in a folder that its arguments do not reach.
        base.Ranker = functools.partial(Ranker, cache_dir=models.flashrank_folder, log_level="ERROR")
        self.kind = base.FlashRankRerank
        self.kind(model=FLASHRANK)

    def reranker(self, **options: Any) -> Any:
        return self.kind(model=FLASHRANK, **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        component = self.reranker()
        component._reranker.rerank = calling(hook, component._reranker.rerank)
        return component


class FlagEmbedding(Reranker):
    label = "`FlagEmbeddingReranker` (llama-index-postprocessor-flag-embedding-reranker)"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        from llama_index.postprocessor.flag_embedding_reranker import FlagEmbeddingReranker

        FlagEmbeddingReranker(model=models.cross_encoder_path)


class Retriever(LlamaIndexRetrieverConformance):
    def __init__(self, models: Models) -> None:
        self.models = models


class OurRetriever(Retriever):
    label = "`ColBERTRetriever`"

    def over(self, documents: Any, model: Any) -> ColBERTIndex:
        index = ColBERTIndex.create(self.models.new_folder(), model)
        index.upsert([node_to_passage(node) for node in documents])
        return index

    def retriever(self, documents: Any, **options: Any) -> Any:
        return ColBERTRetriever(self.over(documents, self.models.colbert), **options)

    def hooked_retriever(self, documents: Any, hook: Hook) -> Any:
        return ColBERTRetriever(self.over(documents, HookedEncoder(hook)))


class VectorIndex(Retriever):
    label = "`VectorIndexRetriever` over `VectorStoreIndex` (llama-index-core)"

    def retriever(self, documents: Any, hook: Hook | None = None, **options: Any) -> Any:
        from llama_index.core import VectorStoreIndex
        from llama_index.core.indices.vector_store import VectorIndexRetriever

        embedding = LetterEmbedding()
        embedding._hook = hook
        return VectorIndexRetriever(VectorStoreIndex(nodes=documents, embed_model=embedding), **options)

    def hooked_retriever(self, documents: Any, hook: Hook) -> Any:
        return self.retriever(documents, hook=hook)


class BM25(Retriever):
    label = "`BM25Retriever` (llama-index-retrievers-bm25)"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        from llama_index.retrievers.bm25 import BM25Retriever

        self.kind = BM25Retriever

    def retriever(self, documents: Any, **options: Any) -> Any:
        return self.kind(nodes=documents, **options)

    def hooked_retriever(self, documents: Any, hook: Hook) -> Any:
        retriever = self.kind(nodes=documents)
        retriever.bm25.retrieve = calling(hook, retriever.bm25.retrieve)
        return retriever


RERANKERS = [OurColBERT, OurCrossEncoder, OurCascade, SentenceTransformer, Colbert, FlashRank, FlagEmbedding]
RETRIEVERS = [OurRetriever, VectorIndex, BM25]
QUICK = [OurCrossEncoder, SentenceTransformer, VectorIndex]
