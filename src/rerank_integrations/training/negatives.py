"""Hard negatives: passages that share words with a query and are not its answer."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from rerank_integrations.core.types import Passage
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.bm25 import BM25
from rerank_integrations.training.pairs import Example

# BM25's best are often answers that nobody marked; those far down teach nothing.
_DEPTH = 20


def mine_negatives(examples: Sequence[Example], count: int, *, seed: int = 0) -> list[Example]:
    """Fill up the negatives of each example to `count` from the positives of the others.

    Drawn from BM25's best 20 for the query, without the positives that the same query has elsewhere; from any, where
    those do not suffice. An example with `count` or more keeps its first ones.

    Raises
    ------
    InvalidInputError
        If there are too few distinct passages.
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
    index = BM25()
    index.build([Passage(id=str(place), text=text) for place, text in enumerate(pool)])
    draw = random.Random(seed)
    found = []
    for example in examples:
        wanted = count - len(example.negatives)
        near = index.retrieve(index.encode(example.query), _DEPTH) if wanted > 0 else []
        taken = answers[example.query].union(example.negatives)
        close = [text for place in near if (text := pool[int(place)]) not in taken]
        drawn = draw.sample(close, min(wanted, len(close))) if wanted > 0 else []
        while len(drawn) < wanted:
            text = draw.choice(pool)
            if text not in taken and text not in drawn:
                drawn.append(text)
        found.append(dataclasses.replace(example, negatives=(*example.negatives, *drawn)[:count]))
    return found
