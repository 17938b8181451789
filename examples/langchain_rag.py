"""A retrieval-augmented chain in LangChain: retrieve by ColBERT, answer from the hits.

pip install 'rerank-integrations[langchain,starter]'
python langchain_rag.py "how do I read one file of an archive?"
"""

import sys
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.langchain import ColBERTRetriever

LIBRARY = {
    "zipfile": "ZipFile.read returns the bytes of one member without extracting the archive.",
    "csv": "csv.reader goes through the rows of a file of comma-separated values.",
    "heapq": "heapq.nlargest returns the n largest elements of a data set.",
    "shutil": "shutil.disk_usage tells how much space is free on a disk.",
    "secrets": "The secrets module makes random numbers fit for passwords and tokens.",
    "difflib": "difflib.get_close_matches finds the words most similar to a misspelt one.",
}


class QuotingModel(SimpleChatModel):
    """Substitute for a language model: it quotes the first source of its prompt."""

    @property
    def _llm_type(self) -> str:
        return "quoting"

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        first_source = str(messages[-1].content).splitlines()[1]
        return f"According to {first_source}"


def numbered(documents: list[Document]) -> str:
    return "\n".join(f"[{document.id}] {document.page_content}" for document in documents)


question = " ".join(sys.argv[1:]) or "how do I read one file of an archive?"
prompt = ChatPromptTemplate.from_template("Answer from these sources:\n{sources}\n\nQuestion: {question}")
llm = QuotingModel()  # Put a real one here, such as ChatOpenAI() of langchain-openai.

with ColBERTIndex.create(None, ColBERTModel("starter")) as index:
    index.upsert({"id": name, "text": text} for name, text in LIBRARY.items())
    retriever = ColBERTRetriever(index=index, k=2)
    for document in retriever.invoke(question):
        print(f"{document.metadata['relevance_score']:6.2f}  [{document.id}] {document.page_content}")
    sources = {"sources": retriever | numbered, "question": RunnablePassthrough()}
    chain = sources | prompt | llm | StrOutputParser()
    print(chain.invoke(question))
