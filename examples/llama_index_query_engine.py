"""A query engine in LlamaIndex: filter, retrieve and rerank by ColBERT, answer from the hits.

pip install 'rerank-integrations[llama-index,starter]'
python llama_index_query_engine.py "how do I read one file of an archive?"
"""

import sys

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from rerank_integrations import ColBERTIndex, ColBERTModel, Passage
from rerank_integrations.llama_index import ColBERTRerank, ColBERTRetriever

LIBRARY = [
    Passage("zipfile", "ZipFile.read returns one member without extracting the archive.", {"topic": "files"}),
    Passage("csv", "csv.reader goes through the rows of comma-separated values.", {"topic": "files"}),
    Passage("shutil", "shutil.disk_usage tells how much space is free on a disk.", {"topic": "files"}),
    Passage("heapq", "heapq.nlargest returns the n largest elements of a data set.", {"topic": "data"}),
    Passage("secrets", "The secrets module makes random numbers for passwords.", {"topic": "security"}),
    Passage("difflib", "difflib.get_close_matches finds the words nearest to a typo.", {"topic": "text"}),
]

question = " ".join(sys.argv[1:]) or "how do I read one file of an archive?"
llm = MockLLM()  # Repeats its prompt. Put a real one here, such as OpenAI() of llama-index-llms-openai.

with ColBERTIndex.create(None, ColBERTModel("starter")) as index:
    index.upsert(LIBRARY)
    about_files = MetadataFilters(filters=[MetadataFilter(key="topic", value="files")])
    engine = RetrieverQueryEngine.from_args(
        ColBERTRetriever(index, similarity_top_k=3, filters=about_files),
        llm=llm,
        # Usually the candidates come from another retriever; those that the index stores are not encoded again.
        node_postprocessors=[ColBERTRerank(index=index, top_n=2, keep_retrieval_score=True)],
    )
    response = engine.query(question)
    for source in response.source_nodes:
        print(f"{source.score:6.2f}  [{source.node_id}] {source.text}")
    print(response)
