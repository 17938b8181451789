"""One index on disk, used by LangChain and by LlamaIndex at the same time.

pip install 'rerank-integrations[all]'
python shared_index.py
"""

import tempfile
from pathlib import Path

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations import langchain as for_langchain
from rerank_integrations import llama_index as for_llama_index

LIBRARY = {
    "zipfile": "ZipFile.read returns the bytes of one member without extracting the archive.",
    "csv": "csv.reader goes through the rows of a file of comma-separated values.",
    "shutil": "shutil.disk_usage tells how much space is free on a disk.",
}
QUESTION = "unpack a compressed tar archive"

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "library"
    with ColBERTIndex.create(path, ColBERTModel("starter")) as index:
        index.upsert({"id": name, "text": text} for name, text in LIBRARY.items())
        # Each opens the index for reading, as two separate programs would.
        chain_side = for_langchain.ColBERTRetriever(index=path, k=2)
        engine_side = for_llama_index.ColBERTRetriever(path, similarity_top_k=2)

        def show(title: str) -> None:
            print(title)
            for document in chain_side.invoke(QUESTION):
                print(f"  LangChain   {document.metadata['relevance_score']:.4f}  {document.id}")
            for node in engine_side.retrieve(QUESTION):
                print(f"  LlamaIndex  {node.score:.4f}  {node.node_id}")

        # A real LLM goes behind each: see langchain_rag.py and llama_index_query_engine.py.
        show("Before")
        index.upsert([{"id": "tarfile", "text": "TarFile.extractall unpacks a compressed tar archive."}])
        show("After the writer added a passage")
        chain_side.index.close()
        engine_side.index.close()
