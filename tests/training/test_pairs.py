"""Training pairs: what is read, what is refused, and which negatives are found."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rerank_integrations import InvalidInputError
from rerank_integrations.training import Example, Fitting, mine_negatives, read_pairs

WORDS = ("zip", "csv", "json", "tar", "html", "audio", "mail", "queue")
EXAMPLES = [Example(f"how to read {word} data", f"The {word} module reads and writes {word} data.") for word in WORDS]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_pairs_are_read_plain_and_gzipped(tmp_path: Path) -> None:
    lines = ['{"query": "a?", "positive": "A."}', "", '{"query": "b?", "positive": "B.", "negatives": ["C."]}']
    packed = tmp_path / "pairs.jsonl.gz"
    with gzip.open(packed, "wt", encoding="utf-8") as stream:
        stream.write("\n".join(lines))
    expected = [Example("a?", "A."), Example("b?", "B.", ("C.",))]
    assert read_pairs(write(tmp_path / "pairs.jsonl", *lines)) == read_pairs(packed) == expected


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: a JSON list"),
        ('{"query": "a"}', "line 2: 'positive' has None"),
        ('{"query": " ", "positive": "A."}', "line 2: 'query' has ' '"),
        ('{"query": "a", "positive": "A.", "negatives": "B."}', "line 2: 'negatives' is 'B.'"),
        ('{"query": "a", "positive": "A.", "negatives": [1]}', "line 2: 'negatives' has 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = write(tmp_path / "pairs.jsonl", '{"query": "a?", "positive": "A."}', line)
    with pytest.raises(InvalidInputError) as raised:
        read_pairs(path)
    assert str(path) in str(raised.value)
    assert told in str(raised.value)


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not a file"):
        read_pairs(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInputError, match="is empty"):
        read_pairs(write(tmp_path / "empty.jsonl", ""))


class CircleEncoder:
    """An encoder that puts each word of `WORDS` at its angle on a circle: one vector per text."""

    name, dim, fingerprint = "circle", 2, "c" * 16

    def options(self) -> dict[str, Any]:
        return {"name_or_path": self.name}

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        angles = [next(at for at, word in enumerate(WORDS) if word in text) * 2 * np.pi / len(WORDS) for text in texts]
        return [np.array([[np.cos(angle), np.sin(angle)]], dtype=np.float32) for angle in angles]

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[NDArray[np.float32]]:
        return self.encode_queries(texts)


@pytest.mark.parametrize("count", [2, 4])
def test_a_model_finds_half_of_the_negatives(count: int) -> None:
    pytest.importorskip("bm25s", reason="negatives are found by BM25")
    # Two passages at one angle: each is likely to answer the other's question.
    examples = [*EXAMPLES, Example("when was zip made", "The zip format is of 1989.")]
    mined = mine_negatives(examples, count, model=CircleEncoder())
    assert mined == mine_negatives(examples, count, model=CircleEncoder())
    for example in mined:
        assert len(set(example.negatives)) == count
        assert example.positive not in example.negatives
        modelled = example.negatives[: count // 2]
        assert not any("zip" in text for text in modelled if "zip" in example.positive)


def test_negatives_are_other_passages_and_the_same_for_one_seed() -> None:
    pytest.importorskip("bm25s", reason="negatives are found by BM25")
    found = mine_negatives(EXAMPLES, 3, seed=1)
    for before, after in zip(EXAMPLES, found, strict=True):
        assert (after.query, after.positive) == (before.query, before.positive)
        assert len(set(after.negatives)) == 3
        assert before.positive not in after.negatives
        assert set(after.negatives) <= {example.positive for example in EXAMPLES}
    assert found == mine_negatives(EXAMPLES, 3, seed=1)
    assert found != mine_negatives(EXAMPLES, 3, seed=2)


def test_negatives_share_words_where_some_do() -> None:
    pytest.importorskip("bm25s", reason="negatives are found by BM25")
    near = [Example(f"tea number {number}", f"Green tea of kind {number}.") for number in range(6)]
    far = [Example(f"bee {number}", f"Honeybees, swarm {number}.") for number in range(30)]
    found = mine_negatives([*near, *far], 3)
    assert all("tea" in text for example in found[:6] for text in example.negatives)


def test_an_answer_of_the_same_query_is_no_negative() -> None:
    pytest.importorskip("bm25s", reason="negatives are found by BM25")
    twice = [Example("green tea", "Green tea, one."), Example("green tea", "Green tea, two."), *EXAMPLES]
    for example in mine_negatives(twice, 4)[:2]:
        assert not {"Green tea, one.", "Green tea, two."} & set(example.negatives)


def test_given_negatives_come_first_and_are_cut() -> None:
    pytest.importorskip("bm25s", reason="negatives are found by BM25")
    given = Example("a", "A.", ("one", "two", "three"))
    assert mine_negatives([given], 2) == [Example("a", "A.", ("one", "two"))]
    filled = mine_negatives([given, *EXAMPLES], 5)[0]
    assert filled.negatives[:3] == given.negatives
    assert len(set(filled.negatives)) == 5


def test_too_few_passages() -> None:
    with pytest.raises(InvalidInputError, match="2 distinct passages; expected at least 4"):
        mine_negatives(EXAMPLES[:2], 3)


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("batch_size", 1.5), ("learning_rate", 0), ("seed", "a")])
def test_settings_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=name):
        Fitting(**{name: value})  # type: ignore[arg-type]
