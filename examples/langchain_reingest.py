"""A folder whose files change, kept in step with an index by LangChain's index(): only what changed is encoded.

pip install 'rerank-integrations[langchain,starter]' langchain-classic 'sqlalchemy[asyncio]' langchain-text-splitters
python langchain_reingest.py
"""

import tempfile
from pathlib import Path

from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document
from langchain_core.indexing import index
from langchain_text_splitters import RecursiveCharacterTextSplitter

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.langchain import ColBERTVectorStore

FILES = {
    "hours.txt": "The library is open from Tuesday to Saturday. On Sunday and Monday it is closed.",
    "loans.txt": "Books are lent for four weeks, films and music for one week.",
    "fees.txt": "The late fee is 20 cents per item and day.",
}
QUESTIONS = ("how much is the late fee?", "how long may I borrow a film?", "when is the repair evening?")
splitter = RecursiveCharacterTextSplitter(chunk_size=300, chunk_overlap=30)


def read_chunks(folder: Path) -> list[Document]:
    """Return the chunks of all text files of a folder, each with its file as the source."""
    return splitter.split_documents(
        Document(page_content=path.read_text(encoding="utf-8"), metadata={"source": path.name})
        for path in sorted(folder.glob("*.txt"))
    )


def synchronise(folder: Path, store: ColBERTVectorStore, records: SQLRecordManager) -> dict[str, int]:
    """Bring the store to the folder's present state: new chunks are added, those of no file any more are removed."""
    return index(read_chunks(folder), records, store, cleanup="full", source_id_key="source", key_encoder="sha256")


with tempfile.TemporaryDirectory() as place:
    folder = Path(place) / "texts"
    folder.mkdir()
    store = ColBERTVectorStore(ColBERTIndex.open_or_create(Path(place) / "index", ColBERTModel("starter")))
    # What was stored is recorded beside the index, for the next run of the program.
    records = SQLRecordManager("texts", db_url=f"sqlite:///{place}/records.db")
    records.create_schema()

    def show(title: str) -> None:
        changes = synchronise(folder, store, records)
        print(f"{title}: " + ", ".join(f"{name.removeprefix('num_')} {count}" for name, count in changes.items()))
        # A real LLM answers from such documents: see langchain_rag.py.
        for question in QUESTIONS:
            (best,) = store.similarity_search(question, k=1)
            print(f"  {question} [{best.metadata['source']}] {best.page_content}")

    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    show("Three files")
    show("The same files again")
    (folder / "repairs.txt").write_text("The repair evening is on the first Thursday of the month.", encoding="utf-8")
    show("One file more")
    (folder / "loans.txt").write_text("Books are lent for three weeks, films for ten days.", encoding="utf-8")
    show("One file changed")
    (folder / "fees.txt").unlink()
    show("One file removed")
    store.index.close()
