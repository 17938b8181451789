"""LangChain's components in the suites: ours and the incumbents."""

from __future__ import annotations

from typing import Any

from conformance_parts.models import (
    FLASHRANK,
    Hook,
    HookedCrossEncoder,
    HookedEncoder,
    HookedScorer,
    LetterEmbeddings,
    Models,
    calling,
)
from rerank_integrations.langchain import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    CrossEncoderRerank,
    RerankingRetriever,
)
from rerank_integrations.testing import LangChainRerankerConformance, LangChainRetrieverConformance


class Reranker(LangChainRerankerConformance):
    def __init__(self, models: Models) -> None:
        self.models = models


class OurColBERT(Reranker):
    label = "`ColBERTRerank`"

    def reranker(self, **options: Any) -> Any:
        return ColBERTRerank(model=self.models.colbert, **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        return ColBERTRerank(model=HookedEncoder(hook))


class OurCrossEncoder(Reranker):
    label = "`CrossEncoderRerank`"

    def reranker(self, **options: Any) -> Any:
        return CrossEncoderRerank(model=self.models.cross_encoder, **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        return CrossEncoderRerank(model=HookedScorer(hook))


class OurCascade(Reranker):
    label = "`CascadeRerank`"

    def reranker(self, **options: Any) -> Any:
        first = ColBERTRerank(model=self.models.colbert, top_n=None)
        return CascadeRerank(stages=[first, CrossEncoderRerank(model=self.models.cross_encoder, top_n=None)], **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        return CascadeRerank(stages=[CrossEncoderRerank(model=HookedScorer(hook))])


class ClassicCrossEncoder(Reranker):
    label = "`CrossEncoderReranker` (langchain-classic) with `HuggingFaceCrossEncoder`"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
        from langchain_community.cross_encoders import HuggingFaceCrossEncoder

        self.kind = CrossEncoderReranker
        self.model = HuggingFaceCrossEncoder(model_name=models.cross_encoder_path, model_kwargs={"device": "cpu"})

    def reranker(self, **options: Any) -> Any:
        return self.kind(model=self.model, **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        return self.kind(model=HookedCrossEncoder(hook))


class Flashrank(Reranker):
    label = "`FlashrankRerank` (langchain-community)"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        from flashrank import Ranker
        from langchain_community.document_compressors import FlashrankRerank

        self.kind, self.ranker = FlashrankRerank, Ranker
        self.client()

    def client(self) -> Any:
        return self.ranker(model_name=FLASHRANK, cache_dir=self.models.flashrank_folder, log_level="ERROR")

    def reranker(self, **options: Any) -> Any:
        return self.kind(client=self.client(), **options)

    def hooked_reranker(self, hook: Hook) -> Any:
        client = self.client()
        client.rerank = calling(hook, client.rerank)
        return self.kind(client=client)


class AnswerDotAi(Reranker):
    label = "`Reranker(...).as_langchain_compressor` (rerankers)"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        from rerankers import Reranker as Theirs
        from rerankers.integrations.langchain import RerankerLangChainCompressor

        self.kind = RerankerLangChainCompressor
        self.model = Theirs(models.cross_encoder_path, model_type="cross-encoder", device="cpu", verbose=0)

    count_argument = "k"

    def reranker(self, **options: Any) -> Any:
        return self.kind(model=self.model, **options)


class Retriever(LangChainRetrieverConformance):
    def __init__(self, models: Models) -> None:
        self.models = models


class OurRetriever(Retriever):
    label = "`ColBERTRetriever`"

    def retriever(self, documents: Any, **options: Any) -> Any:
        made = ColBERTRetriever.from_documents(documents, self.models.colbert, path=self.models.new_folder())
        return ColBERTRetriever(index=made.index, **options)

    def hooked_retriever(self, documents: Any, hook: Hook) -> Any:
        return ColBERTRetriever.from_documents(documents, HookedEncoder(hook), path=self.models.new_folder())


class OurRerankingRetriever(Retriever):
    label = "`RerankingRetriever`"
    count_argument = "top_n"

    def base(self, documents: Any) -> Any:
        return ColBERTRetriever.from_documents(documents, self.models.colbert, path=self.models.new_folder())

    def retriever(self, documents: Any, top_n: int = 3, **options: Any) -> Any:
        reranker = CrossEncoderRerank(model=self.models.cross_encoder, top_n=top_n)
        return RerankingRetriever(base_retriever=self.base(documents), compressor=reranker, **options)

    def hooked_retriever(self, documents: Any, hook: Hook) -> Any:
        reranker = CrossEncoderRerank(model=HookedScorer(hook))
        return RerankingRetriever(base_retriever=self.base(documents), compressor=reranker)


class BM25(Retriever):
    label = "`BM25Retriever` (langchain-community)"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        import rank_bm25  # noqa: F401
        from langchain_community.retrievers import BM25Retriever

        self.kind = BM25Retriever

    def retriever(self, documents: Any, **options: Any) -> Any:
        return self.kind.from_documents(documents, **options)

    def hooked_retriever(self, documents: Any, hook: Hook) -> Any:
        retriever = self.kind.from_documents(documents)
        retriever.vectorizer.get_top_n = calling(hook, retriever.vectorizer.get_top_n)
        return retriever


class InMemory(Retriever):
    label = "`VectorStoreRetriever` over `InMemoryVectorStore` (langchain-core)"

    def retriever(self, documents: Any, k: int = 4, hook: Hook | None = None, **options: Any) -> Any:
        from langchain_core.vectorstores import InMemoryVectorStore, VectorStoreRetriever

        store = InMemoryVectorStore(LetterEmbeddings(hook))
        store.add_documents(documents)
        return VectorStoreRetriever(vectorstore=store, search_kwargs={"k": k}, **options)

    def hooked_retriever(self, documents: Any, hook: Hook) -> Any:
        return self.retriever(documents, hook=hook)


class Compression(Retriever):
    label = "`ContextualCompressionRetriever` (langchain-classic) with `CrossEncoderReranker` over the former"
    count_argument = "top_n"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        from langchain_classic.retrievers import ContextualCompressionRetriever

        self.kind = ContextualCompressionRetriever
        self.cross, self.memory = ClassicCrossEncoder(models), InMemory(models)

    def retriever(self, documents: Any, top_n: int = 3, **options: Any) -> Any:
        base = self.memory.retriever(documents, k=100)
        return self.kind(base_retriever=base, base_compressor=self.cross.reranker(top_n=top_n), **options)

    def hooked_retriever(self, documents: Any, hook: Hook) -> Any:
        base = self.memory.retriever(documents, k=100)
        return self.kind(base_retriever=base, base_compressor=self.cross.hooked_reranker(hook))


RERANKERS = [OurColBERT, OurCrossEncoder, OurCascade, ClassicCrossEncoder, Flashrank, AnswerDotAi]
RETRIEVERS = [OurRetriever, OurRerankingRetriever, BM25, InMemory, Compression]
QUICK = [OurCrossEncoder, ClassicCrossEncoder, InMemory]
