"""Answers from a folder of PDFs in LangChain, which cite the file and the page: read, split, ColBERT, LLM.

pip install 'rerank-integrations[langchain,starter]' langchain-text-splitters pypdf
python langchain_pdf_citations.py "when is the repair evening?"
"""

import sys
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_text_splitters import RecursiveCharacterTextSplitter
from pypdf import PdfReader

from rerank_integrations import ColBERTModel
from rerank_integrations.langchain import ColBERTRetriever


class QuotingModel(SimpleChatModel):
    """Substitute for a language model: it quotes the first source of its prompt, with its citation."""

    @property
    def _llm_type(self) -> str:
        return "quoting"

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        citation, text = str(messages[-1].content).splitlines()[1:3]
        return f"{text} {citation}"


def read_pages(folder: Path) -> list[Document]:
    """Return a document per page of every PDF in a folder; pages count from 1, as readers of a PDF count them."""
    return [
        Document(page_content=" ".join(page.extract_text().split()), metadata={"source": path.name, "page": number})
        for path in sorted(folder.glob("**/*.pdf"))
        for number, page in enumerate(PdfReader(path).pages, start=1)
    ]


def chunk_id(chunk: Document) -> str:
    """Return an id that is the same in the next run, so that a chunk on disk is replaced, not stored twice."""
    return "{source}:{page}:{start_index}".format(**chunk.metadata)


def cite(document: Document) -> str:
    return "[{source}, page {page}]".format(**document.metadata)


question = sys.argv[1] if len(sys.argv) > 1 else "when is the repair evening?"
folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("library")
llm = QuotingModel()  # Put a real one here, such as ChatOpenAI() of langchain-openai.
prompt = ChatPromptTemplate.from_template(
    "Answer from these sources, and copy the citation of each that you use:\n{sources}\n\nQuestion: {question}"
)

splitter = RecursiveCharacterTextSplitter(
    chunk_size=300, chunk_overlap=0, separators=[". ", " "], keep_separator="end", add_start_index=True
)
chunks = splitter.split_documents(read_pages(folder))
# With path="library_index" the index stays on disk. A stronger model: "colbert-ir/colbertv2.0".
retriever = ColBERTRetriever.from_documents(chunks, ColBERTModel("starter"), ids=map(chunk_id, chunks), k=3)

documents = retriever.invoke(question)
sources = "\n".join(f"{cite(document)}\n{document.page_content}" for document in documents)
chain = prompt | llm | StrOutputParser()
print(chain.invoke({"sources": sources, "question": question}))
print("Sources:")
for document in documents:
    print(f"{document.metadata['relevance_score']:6.2f}  {cite(document)}")
