"""Ingest a folder again and again in LlamaIndex: what is new or has changed is encoded, and what is gone is deleted.

pip install 'rerank-integrations[llama-index,starter]'
python llama_index_reingest.py
"""

import tempfile
from pathlib import Path

from llama_index.core import MockEmbedding, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.llama_index import ColBERTVectorStore

# LlamaIndex asks for an embedding model. The store encodes by itself, and this one computes nothing.
NO_EMBEDDING = MockEmbedding(embed_dim=1)
# A passage has the same id in every run, so that the run after an interrupted one stores nothing twice.
SPLITTER = SentenceSplitter(chunk_size=256, chunk_overlap=20, id_func=lambda number, file: f"{file.id_}#{number}")
llm = MockLLM()  # Repeats its prompt. Put a real LLM here, such as OpenAI() of llama-index-llms-openai.


def ingest(folder: Path, state: Path) -> None:
    """Bring the index in `state` up to date with the files of `folder`, as a nightly job would."""
    documents = SimpleDirectoryReader(folder, filename_as_id=True, file_metadata=metadata).load_data()
    # The document store knows a file by its path, and a change by the hash of its text and metadata.
    path = state / "ingested.json"
    docstore = SimpleDocumentStore.from_persist_path(str(path)) if path.exists() else SimpleDocumentStore()
    with ColBERTIndex.open_or_create(state / "index", ColBERTModel("starter")) as index:
        before = stored_files(index)
        pipeline = IngestionPipeline(
            transformations=[SPLITTER, NO_EMBEDDING],
            docstore=docstore,
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
            vector_store=ColBERTVectorStore(index),
        )
        encoded = {node.metadata["file"] for node in pipeline.run(documents=documents)}
        docstore.persist(str(path))
        after = stored_files(index)
    print(f"added {sorted(encoded - before)}, replaced {sorted(encoded & before)}, deleted {sorted(before - after)}")


def metadata(path: str) -> dict[str, str]:
    """Return what is stored with a file. LlamaIndex's own has dates, by which an unchanged file would seem changed."""
    return {"file": Path(path).name}


def stored_files(index: ColBERTIndex) -> set[str]:
    return {passage.metadata["file"] for passage in index.get(where={})}


def ask(question: str, state: Path) -> None:
    with ColBERTIndex.open(state / "index") as index:
        vector_index = VectorStoreIndex.from_vector_store(ColBERTVectorStore(index), embed_model=NO_EMBEDDING)
        response = vector_index.as_query_engine(llm=llm, similarity_top_k=1).query(question)
    for source in response.source_nodes:
        print(f"  {question} [{source.metadata['file']}] {source.text}")


with tempfile.TemporaryDirectory() as temporary:
    folder, state = Path(temporary, "notices"), Path(temporary, "state")
    folder.mkdir()
    (folder / "price.txt").write_text("A ticket costs 10 euros.")
    (folder / "hours.txt").write_text("The museum is open from 9:00 to 17:00.")
    (folder / "strike.txt").write_text("The tram to the museum is on strike.")
    for _ in range(2):
        ingest(folder, state)
        ask("How much is a ticket?", state)
        ask("Does the tram go to the museum?", state)

    (folder / "price.txt").write_text("A ticket costs 12 euros.")
    (folder / "bus.txt").write_text("Bus 7 goes to the museum every ten minutes.")
    (folder / "strike.txt").unlink()
    ingest(folder, state)
    ask("How much is a ticket?", state)
    ask("Does the tram go to the museum?", state)
