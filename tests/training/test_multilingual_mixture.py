"""The examples of the multilingual starters: split by length, from small files of the same form as the real ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rerank_integrations.training import Example

TRAINING = Path(__file__).parents[2] / "training"
NAMES = ("read", "write", "open", "close", "pack", "send", "sort", "find")


@pytest.fixture
def mixture(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("bm25s", reason="negatives are found by BM25")
    monkeypatch.syspath_prepend(str(TRAINING))
    import multilingual_mixture

    return multilingual_mixture


def test_batches_have_texts_of_like_length(mixture: Any) -> None:
    examples = [Example(f"q{at}", "word " * (at * 7 % 1_600 + 1), ("word",)) for at in range(1_600)]
    split = mixture.by_length({"long": examples, "short": examples[:20]}, lambda text: len(text.split()))
    assert split["short"] == examples[:20]
    buckets = [split[f"long-{number}"] for number in range(3)]
    assert sorted(example.query for bucket in buckets for example in bucket) == sorted(item.query for item in examples)
    lengths = [[len(example.positive.split()) for example in bucket] for bucket in buckets]
    assert max(lengths[0]) <= min(lengths[1])
    assert max(lengths[1]) <= min(lengths[2])


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def test_the_mixture_is_seeded_and_has_both_languages(mixture: Any, tmp_path: Path) -> None:
    abstract = (
        "A study of how to {0} the many files of a large archive. " + "To {0} has results that nobody expected. " * 8
    )
    for name in ("squad_train", "scifact_train", "drcd_dev_zh", "drcd_test_zh", "cmrc2018_trial_zh"):
        chinese = name.endswith("zh")
        texts = [f"怎样{word}文件 {name}" if chinese else abstract.format(word) for word in NAMES]
        rows = [{"query": f"{word}?", "positive": text, "title": "t"} for word, text in zip(NAMES, texts, strict=True)]
        write(tmp_path / "train" / f"{name}.jsonl.gz", rows * (1_000 if name == "squad_train" else 1))
    for name in mixture.HEADINGS:
        rows = [{"_id": word, "title": word, "text": f"How to {word} the files of an archive. " * 3} for word in NAMES]
        write(tmp_path / "scale" / f"{name}.corpus.jsonl.gz", rows)
    sources = mixture.multilingual_mixture(tmp_path, 2, 0, limit=6)
    assert sources == mixture.multilingual_mixture(tmp_path, 2, 0, limit=6)
    assert {"squad", "chinese", "manpages_zh", "scifact"} <= set(sources)
    assert all(len(example.negatives) == 2 for examples in sources.values() for example in examples)
    assert max(map(len, sources.values())) <= 6 * 4
