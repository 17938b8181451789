"""Explain a hit: the words that the question matched, in the terminal and as an HTML heat map.

pip install 'rerank-integrations[starter]'
python explain.py ["a question"] [page.html]
"""

import sys
from pathlib import Path

from rerank_integrations import ColBERTIndex, ColBERTModel, explain

LIBRARY = {
    "zipfile": "ZipFile.read returns the bytes of one member without extracting the archive.",
    "csv": "csv.reader goes through the rows of a file of comma-separated values.",
    "shutil": "shutil.disk_usage tells how much space is free on a disk.",
}
question = sys.argv[1] if len(sys.argv) > 1 else "how do I read one file of an archive?"
page = Path(sys.argv[2] if len(sys.argv) > 2 else "explanation.html")

model = ColBERTModel("starter")  # a stronger model: "colbert-ir/colbertv2.0"
with ColBERTIndex.create(None, model) as index:
    index.upsert({"id": name, "text": text} for name, text in LIBRARY.items())
    best = index.search(question, k=1)[0]

explanation = explain(question, best, model)
print(f"[{best.id}] {explanation.score:.4f}")
for word in explanation.words():
    print(f"  {word.query_word}: {', '.join(match.word for match in word.matched)} ({word.mean:.2f})")
print(explanation.to_text(width=80))
page.write_text(explanation.to_html(), encoding="utf-8")
print(f"The heat map is in {page}")
