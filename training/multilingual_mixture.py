"""The training data of the multilingual starters: Chinese and English questions, claims and headings with passages."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mixture import CLAIM_ROUNDS, read_abstracts, read_claims, read_headings, read_questions, read_rows

from rerank_integrations import ColBERTModel
from rerank_integrations.training import Example, mine_negatives

QUESTIONS = 8_000
CHINESE_QUESTIONS = ("drcd_dev_zh", "drcd_test_zh", "cmrc2018_trial_zh")
HEADINGS = {"manpages_zh": 4_000, "debian_pkg_en": 3_000, "foldoc": 2_000}
# Batches of texts of like length have little padding. Sources below this size are not split.
_MIN_BUCKET = 500


def multilingual_mixture(
    data: Path, negatives: int, seed: int, model: ColBERTModel | None = None, limit: int | None = None
) -> dict[str, list[Example]]:
    """Return examples with `negatives` each, by source, at most `limit` of each; `model` as for `mine_negatives`.

    About as many examples are Chinese as English. None is of `eval/`, except for the abstracts of SciFact's train
    claims, which are a part of that collection's corpus.
    """
    draw = random.Random(seed)
    claims = read_claims(data)
    chinese = [
        Example(row["query"], row["positive"])
        for name in CHINESE_QUESTIONS
        for row in read_rows(data / "train" / f"{name}.jsonl.gz")
    ]
    sources = {
        "squad": read_questions(data, QUESTIONS, draw),
        "chinese": chinese,
        "abstracts": read_abstracts(claims),
        **{
            name: read_headings(data / "scale" / f"{name}.corpus.jsonl.gz", count, draw)
            for name, count in HEADINGS.items()
        },
    }
    if limit is not None:
        claims = claims[:limit]
        sources = {name: draw.sample(examples, min(limit, len(examples))) for name, examples in sources.items()}
    mixed = {name: mine_negatives(examples, negatives, seed=seed, model=model) for name, examples in sources.items()}
    # The few claims are repeated, with other negatives each time.
    mixed["scifact"] = [
        example
        for number in range(CLAIM_ROUNDS)
        for example in mine_negatives(claims, negatives, seed=seed + number, model=model)
    ]
    return mixed


def by_length(
    sources: Mapping[str, Sequence[Example]], count: Callable[[str], int], buckets: int = 3
) -> dict[str, list[Example]]:
    """Split each source into `buckets` of equal size, by the `count` of tokens of the longest passage.

    A batch is of one source, so it has texts of like length, and little padding. Examples keep their order in a bucket.
    """
    split: dict[str, list[Example]] = {}
    for name, examples in sources.items():
        if len(examples) < buckets * _MIN_BUCKET:
            split[name] = list(examples)
            continue
        lengths = [max(map(count, (example.positive, *example.negatives))) for example in examples]
        ranked = sorted(range(len(examples)), key=lambda position: (lengths[position], position))
        for number in range(buckets):
            part = ranked[number * len(ranked) // buckets : (number + 1) * len(ranked) // buckets]
            split[f"{name}-{number}"] = [examples[position] for position in sorted(part)]
    return split
