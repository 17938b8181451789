"""Training pairs in JSON lines."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from rerank_integrations.core.index.colbert_index import ColBERTIndex
from rerank_integrations.core.jsonl import read_lines
from rerank_integrations.core.types import Passage, TokenEncoder
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.bm25 import BM25

# Among BM25's best are often unmarked answers; passages far down teach nothing.
_BM25_DEPTH = _MODEL_DEPTH = 20
_MAX_SHARE_OF_POSITIVE = 0.95


def mine_negatives(
    examples: Sequence[Example], count: int, *, seed: int = 0, model: TokenEncoder | None = None
) -> list[Example]:
    """Fill up the negatives of each example to `count` with the positives of other examples.

    They are drawn from BM25's best 20 for the query, without the query's positives in other examples, or from all
    passages if those are too few. An example with `count` negatives or more keeps the first `count`.

    Parameters
    ----------
    model
        If present, every second negative is drawn from its best 20 instead, without those that it scores above 95 % of
        the positive: they are likely to be answers that nobody marked.

    Raises
    ------
    InvalidInputError
        If there are too few distinct passages.

    References
    ----------
    Moreira et al., NV-Retriever: Improving text embedding models with effective hard-negative mining, 2024,
    arXiv:2407.15831.
    """
    pool = list(dict.fromkeys(example.positive for example in examples))
    answers: dict[str, set[str]] = {}
    for example in examples:
        answers.setdefault(example.query, set()).add(example.positive)
    short = [example for example in examples if len(example.negatives) < count]
    most = max((len(answers[example.query]) for example in short), default=0)
    if short and len(pool) < most + count:
        raise InvalidInputError(f"the pairs hold {len(pool)} distinct passages; expected at least {most + count}")
    if not short:
        return [dataclasses.replace(example, negatives=example.negatives[:count]) for example in examples]
    passages = [Passage(id=str(position), text=text) for position, text in enumerate(pool)]
    index = BM25()
    index.build(passages)
    modelled = {} if model is None else _near_by_model(model, passages, short)
    draw = random.Random(seed)
    filled = []
    for example in examples:
        wanted = count - len(example.negatives)
        near = index.retrieve(index.encode(example.query), _BM25_DEPTH) if wanted > 0 else []
        taken = answers[example.query].union(example.negatives)
        close = [text for text in modelled.get((example.query, example.positive), []) if text not in taken]
        drawn = draw.sample(close, min(wanted // 2, len(close))) if wanted > 0 else []
        close = [text for position in near if (text := pool[int(position)]) not in taken and text not in drawn]
        drawn += draw.sample(close, min(wanted - len(drawn), len(close))) if wanted > 0 else []
        while len(drawn) < wanted:
            text = draw.choice(pool)
            if text not in taken and text not in drawn:
                drawn.append(text)
        filled.append(dataclasses.replace(example, negatives=(*example.negatives, *drawn)[:count]))
    return filled


def _near_by_model(
    model: TokenEncoder, passages: list[Passage], examples: list[Example]
) -> dict[tuple[str, str], list[str]]:
    """Return the texts among a model's best, by query and positive, without those that may be answers."""
    near = {}
    with tempfile.TemporaryDirectory(prefix="negatives-") as folder:
        # Four bits per dimension rank the best 20 as whole vectors do, in an eighth of the space.
        index = ColBERTIndex.create(Path(folder) / "index", model, nbits=4)
        index.upsert(passages)
        for example in tqdm(examples, desc="negatives of the model", unit=" queries", disable=None):
            hits = index.search(example.query, k=_MODEL_DEPTH)
            own = next((hit.score for hit in hits if hit.text == example.positive), None)
            limit = math.inf if own is None else _MAX_SHARE_OF_POSITIVE * own
            near[example.query, example.positive] = [hit.text for hit in hits if hit.score <= limit]
    return near


@dataclass(frozen=True)
class Example:
    """A query, a passage that answers it, and passages that do not answer it."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()


def read_pairs(path: str | Path) -> list[Example]:
    """Read a JSONL file, plain or gzipped, of lines with ``query``, ``positive`` and, if wanted, a list ``negatives``.

    Raises
    ------
    InvalidInputError
        If there is no such file, it is empty, or a line has another form; the message names the file and the line.
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidInputError(f"{file} is not a file; expected JSON lines with 'query' and 'positive'")
    examples = [
        _example(line, f"{file}, line {number}")
        for number, line in enumerate(read_lines(file), start=1)
        if line.strip()
    ]
    if not examples:
        raise InvalidInputError(f"{file} is empty; expected JSON lines with 'query' and 'positive'")
    return examples


def _example(line: str, where: str) -> Example:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InvalidInputError(f"{where}: not JSON ({error}); expected an object") from error
    if not isinstance(record, dict):
        raise InvalidInputError(f"{where}: a JSON {type(record).__name__}; expected an object")
    negatives = record.get("negatives") or []
    if not isinstance(negatives, list):
        raise InvalidInputError(f"{where}: 'negatives' is {negatives!r}; expected a list of texts")
    texts = [_text(record.get(name), name, where) for name in ("query", "positive")]
    return Example(texts[0], texts[1], tuple(_text(text, "negatives", where) for text in negatives))


def _text(value: object, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{where}: {name!r} has {value!r}; expected a text")
    return value
