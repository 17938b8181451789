"""Answer from a folder of PDFs in LlamaIndex, by ColBERT alone, and cite the file and the page of every source.

pip install 'rerank-integrations[llama-index,starter]' pypdf
python llama_index_pdf_citations.py "what do I pay for a book that I return too late?"
"""

import re
import sys
from pathlib import Path
from typing import Any

from llama_index.core import Document
from llama_index.core.llms import CompletionResponse, MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import CitationQueryEngine
from pypdf import PdfReader

from rerank_integrations.llama_index import ColBERTManagedIndex


class CitingLLM(MockLLM):
    """Substitute for a language model: it quotes the first source of its prompt and cites it."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        first_source = prompt.split("------\n")[1].split("Source 1:\n")[1].split("\n\n")[0]
        return CompletionResponse(text=f"{' '.join(first_source.split())} [1]")


def read_pdfs(folder: Path) -> list[Document]:
    """Return one document per page. Its id is the same in every run, so that the index knows the page again."""
    return [
        Document(
            doc_id=f"{path.name}#page={number}",
            text=page.extract_text(),
            metadata={"file_name": path.name, "page": number},
        )
        for path in sorted(folder.glob("*.pdf"))
        for number, page in enumerate(PdfReader(path).pages, start=1)
    ]


question = sys.argv[1] if len(sys.argv) > 1 else "what do I pay for a book that I return too late?"
folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("library")
llm = CitingLLM()  # Put a real LLM here, such as OpenAI() of llama-index-llms-openai.

pages = read_pdfs(folder)
# The first run encodes every page, a later one the pages that are new or have changed.
index = ColBERTManagedIndex.from_documents(
    pages,
    model="starter",  # a stronger model: "colbert-ir/colbertv2.0"
    path="handbooks_index",
    transformations=[SentenceSplitter(chunk_size=80, chunk_overlap=0)],
)
with index.index as passages:
    # Pages whose file is gone.
    for page_id in index.ref_doc_info.keys() - {page.doc_id for page in pages}:
        index.delete_ref_doc(page_id)
    print(f"{len(index.ref_doc_info)} pages, {len(passages)} passages")
    engine = CitationQueryEngine.from_args(index, llm=llm, similarity_top_k=3)
    response = engine.query(question)

print(response)
for number in sorted({int(number) for number in re.findall(r"\[(\d+)\]", str(response))}):
    source = response.source_nodes[number - 1]
    print(f"[{number}] {source.metadata['file_name']}, page {source.metadata['page']} (score {source.score:.2f})")
