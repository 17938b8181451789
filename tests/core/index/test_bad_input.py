"""Bad arguments, models and paths raise a clear error or give an empty answer, and nothing is lost."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import math
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_index import PASSAGES, answers, check_unharmed, make_two_segments
from toy import ToyEncoder, child_env

from rerank_integrations import (
    ColBERTIndex,
    ColBERTScorer,
    IndexLockedError,
    IndexReadError,
    IndexWriteError,
    InvalidInputError,
    ModelMismatchError,
    Passage,
    export_colbert,
    import_colbert,
)
from rerank_integrations.core.index.colbert_index import as_index


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def index(path: Path) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(PASSAGES)
        before = answers(index)
        yield index
        check_unharmed(index, before)


@pytest.fixture
def made(path: Path) -> Path:
    return make_two_segments(path)


class Color(enum.Enum):
    RED = "red"


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
DEEP: Any = {}
for _ in range(150):
    DEEP = {"a": [DEEP]}


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("it cannot be shown")


# What no metadata holds and no filter compares with.
NO_SCALARS: dict[str, Any] = {
    "object": object(),
    "broken object": Broken(),
    "bytes": b"raw",
    "NaN": math.nan,
    "infinity": -math.inf,
    "endless": 10**5000,
    "set": {1, 2},
    "array": np.zeros(3),
    "NumPy number": np.int64(3),
    "NumPy float": np.float32(3),
    "NumPy bool": np.bool_(True),
    "NumPy date": np.datetime64("2024-01-01"),
    "date": datetime.date(2024, 1, 1),
    "time": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
    "duration": datetime.timedelta(days=1),
    "UUID": uuid.UUID(int=1),
    "decimal": decimal.Decimal("1.5"),
    "fraction": fractions.Fraction(1, 2),
    "complex": 1j,
    "path": Path("a"),
    "enum": Color,
    "member of an enum": Color.RED,
    "lone surrogate": "\ud800",
    "NUL": "x\0y",
}

BAD_METADATA: dict[str, Any] = {
    **{kind: {"a": value} for kind, value in NO_SCALARS.items()},
    **{f"{kind} inside": {"a": [{"b": value}]} for kind, value in NO_SCALARS.items()},
    "circle": {"a": CIRCLE},
    "too deep": DEEP,
    "tuple as key": {("a", "b"): 1},
    "number as key": {1: "a", "1": "b"},
    "number as key inside": {"by_page": [{1: "a", "1": "b"}]},
    "float as key": {"a": {2.5: 1}},
    "bool as key": {"a": {True: 1}},
    "None as key": {"a": {None: 1}},
    "bytes as key": {b"a": 1},
    "lone surrogate in a key": {"\udfff": 1},
    "NUL in a key": {"a\0": 1},
}


@pytest.mark.parametrize("kind", BAD_METADATA)
def test_metadata_that_is_not_json(index: ColBERTIndex, kind: str) -> None:
    with pytest.raises(InvalidInputError, match="'bad'"):
        index.upsert([Passage("good", "text"), Passage("bad", "text", BAD_METADATA[kind])])


@pytest.mark.parametrize("kind", NO_SCALARS)
def test_a_filter_refuses_what_metadata_does(index: ColBERTIndex, kind: str) -> None:
    value = NO_SCALARS[kind]
    for condition in (value, {"$eq": value}, {"$ne": value}, {"$in": ["x", value]}, {"$gt": value}):
        with pytest.raises(InvalidInputError, match="'n'"):
            index.search("text", where={"n": condition})


def test_refused_metadata_says_where_what_and_how_else(index: ColBERTIndex) -> None:
    with pytest.raises(InvalidInputError, match=r"'bad'.*datetime.date\(2024, 1, 1\).*'made.1'.*isoformat\(\)"):
        index.upsert([Passage("bad", "text", {"made": ["x", datetime.date(2024, 1, 1)]})])
    with pytest.raises(InvalidInputError, match=r"the key 1 \(of type int\) at 'by_page'; expected a string"):
        index.upsert([Passage("bad", "text", {"by_page": {1: "a", "1": "b"}})])


def test_metadata_at_the_border_is_kept(path: Path) -> None:
    deep: Any = 1
    for _ in range(45):
        deep = {"a": [deep]}
    border = {
        "backslash": "\\u0000 \\", "control": "\x01\x7f\u2028", "emoji 😀 \\ key": "😀",
        "big": 2**80, "small": 1e-300, "deep": deep, "empty": {}, "none": None, "": "no name",
    }  # fmt: skip
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert([Passage("a", "text", border), Passage("b", "text", {"n": (1, 2)})])
        assert index.get(["a", "b"]) == [Passage("a", "text", border), Passage("b", "text", {"n": [1, 2]})]
        assert [hit.id for hit in index.search("text", where={"control": "\x01\x7f\u2028"})] == ["a"]
        assert [hit.id for hit in index.search("text", where={"emoji 😀 \\ key": "😀"})] == ["a"]


BAD_PASSAGES: dict[str, Any] = {
    "number": 7,
    "none": None,
    "bytes": b"raw",
    "list": ["text"],
    "mapping without text": {"id": "a"},
    "mapping with another key": {"text": "x", "meta": {}},
    "text a number": {"text": 7},
    "id a number": {"text": "x", "id": 7},
    "id empty": {"text": "x", "id": ""},
    "metadata a list": {"text": "x", "metadata": [1]},
    "lone surrogate in the text": {"text": "x \ud83d"},
    "lone surrogate in a plain string": "x \udc00",
    "lone surrogate in the id": {"text": "x", "id": "\ud83d"},
    "NUL in the id": {"text": "x", "id": "p1\0"},
}


@pytest.mark.parametrize("kind", BAD_PASSAGES)
def test_something_that_is_no_passage(index: ColBERTIndex, kind: str) -> None:
    with pytest.raises(InvalidInputError):
        index.upsert([Passage("good", "text"), BAD_PASSAGES[kind]])


@pytest.mark.parametrize(
    "given",
    ["one string", b"bytes", {"text": "one mapping"}, PASSAGES[0], 7, None],
    ids=lambda given: type(given).__name__,
)
def test_upsert_of_something_that_is_no_list(index: ColBERTIndex, given: Any) -> None:
    with pytest.raises(InvalidInputError, match=type(given).__name__):
        index.upsert(given)


@pytest.mark.parametrize("k", [-1, True, False, 2.0, "3", None, math.nan])
def test_k_that_is_no_count(index: ColBERTIndex, k: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: index.search("text", k),
        lambda: index.search("", k),
        lambda: index.search_many(["text"], k),
        lambda: index.search_many([], k),
        lambda: index.rerank("text", ["p1"], k),
    ]
    for call in calls[: -1 if k is None else None]:
        with pytest.raises(InvalidInputError, match="k is"):
            call()


@pytest.mark.parametrize("query", [None, 7, b"text", ["text"], "lone \ud800 surrogate"])
def test_a_query_that_is_no_text(index: ColBERTIndex, query: Any) -> None:
    for call in (lambda: index.search(query), lambda: index.search_many([query]), lambda: index.rerank(query, ["p1"])):
        with pytest.raises(InvalidInputError, match="query"):
            call()


@pytest.mark.parametrize("queries", ["text", b"text", {"text": 1}, None, 7], ids=lambda given: type(given).__name__)
def test_one_thing_for_many_queries(index: ColBERTIndex, queries: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"queries is one {type(queries).__name__}"):
        index.search_many(queries)


@pytest.mark.parametrize("query", ["", "  \n"])
def test_rerank_wants_a_query(index: ColBERTIndex, query: str) -> None:
    with pytest.raises(InvalidInputError, match="query"):
        index.rerank(query, ["p1"])


@pytest.mark.parametrize("ids", ["p1", 7, None, [7], ["p1", None], [["p1"]], [b"p1"]])
def test_ids_that_are_no_ids(index: ColBERTIndex, ids: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: index.delete(ids),
        lambda: index.get(ids),
        lambda: index.rerank("text", ids),
        lambda: index.search("text", ids=ids),
    ]
    for call in calls[: -1 if ids is None else None]:
        with pytest.raises(InvalidInputError, match="id"):
            call()


@pytest.mark.parametrize("strange", ["p1\0", "p1\0x", "\0", "\ud800", "", "p1' OR 1=1 --", '"', "p" * 10**6])
def test_an_id_that_cannot_be_there_is_unknown(index: ColBERTIndex, strange: str) -> None:
    assert index.delete([strange]) == 0
    assert index.get([strange]) == []
    assert strange not in index
    assert index.rerank("text", [strange]) == []
    assert index.search("text", ids=[strange]) == []


def test_strange_ids_and_texts_are_kept(path: Path) -> None:
    ids = ["i" * 100_000, "' OR 1=1 --", '"quoted"', "😀\n\t", "é", "e\u0301", " ", "\x01", "NULL", "1", "1.0", "[]"]
    texts = ["nul \0 inside", "\0", "\x1f\x7f", "😀 emoji", "long " * 5000]
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert([Passage(key, "text") for key in ids] + [Passage(f"t{n}", text) for n, text in enumerate(texts)])
        assert [passage.id for passage in index.get(ids)] == ids
        assert sorted(hit.id for hit in index.rerank("text", ids)) == sorted(ids)
        assert [passage.text for passage in index.get([f"t{n}" for n in range(5)])] == texts
        assert {hit.text for hit in index.search("inside", 100, ids=[f"t{n}" for n in range(5)])} == set(texts)
        assert index.upsert([Passage("t0", texts[0])]) == ["t0"]
        assert index.model.encoded.count(texts[0]) == 1  # type: ignore[attr-defined]
        for number, key in enumerate(ids):
            assert index.delete([key]) == 1
            assert len(index) == len(ids) + len(texts) - number - 1


@pytest.mark.parametrize("nbits", [0, 3, 8, True, "2", None, 2.0, [2]])
def test_nbits_that_is_none(path: Path, nbits: Any) -> None:
    with pytest.raises(InvalidInputError, match="nbits"):
        ColBERTIndex.create(path, ToyEncoder(), nbits=nbits)
    assert not path.exists()


@pytest.mark.parametrize("model", [None, 7, object(), ["colbert"]])
def test_a_model_that_is_none(path: Path, model: Any) -> None:
    with pytest.raises(InvalidInputError, match="model"):
        ColBERTIndex.create(path, model)
    assert not path.exists()


class OfBytes:
    def __fspath__(self) -> bytes:
        return b"x"


@pytest.mark.parametrize("where", [7, b"x", "nul\0", "", ["a"], OfBytes()])
def test_a_path_that_is_none(where: Any) -> None:
    for call in (ColBERTIndex.create, ColBERTIndex.open):
        with pytest.raises(InvalidInputError, match="path"):
            call(where, ToyEncoder())


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    for call in (ColBERTIndex.create, ColBERTIndex.open, ColBERTIndex.open_or_create):
        with pytest.raises((IndexReadError, IndexWriteError), match="too long"):
            call(tmp_path / ("long" * 100), ToyEncoder())


def test_a_path_of_colbert_ai_that_is_too_long(tmp_path: Path, index: ColBERTIndex) -> None:
    with pytest.raises(IndexReadError, match="too long"):
        import_colbert(tmp_path / ("long" * 100), tmp_path / "new", ToyEncoder())
    with pytest.raises(IndexWriteError, match="too long"):
        export_colbert(index, tmp_path / ("long" * 100))


def test_as_index_of_something_else() -> None:
    with pytest.raises(InvalidInputError, match="int"):
        as_index(7)  # type: ignore[arg-type]


# --- a model that misbehaves ---


class ChangedEncoder(ToyEncoder):
    """Encoder that applies `change` to the right vectors, of queries and of documents."""

    def __init__(self, change: Callable[[list[Any]], Any]) -> None:
        super().__init__()
        self.change = change

    def encode_documents(self, texts: Any, show_progress: bool = False) -> Any:
        return self.change(super().encode_documents(texts))

    def encode_queries(self, texts: Any) -> Any:
        return self.change(super().encode_queries(texts))


def each(change: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    return lambda vectors: [change(vector) for vector in vectors]


BROKEN: dict[str, Callable[[list[Any]], Any]] = {
    "NaN": lambda vectors: [*vectors[:-1], vectors[-1] * np.float32(np.nan)],
    "infinite": lambda vectors: [vectors[0] / np.float32(0), *vectors[1:]],
    "minus infinity": lambda vectors: [-np.abs(vectors[0]) / np.float32(0), *vectors[1:]],
    "beyond float16": each(lambda vector: vector * np.float32(1e6)),
    "beyond float32": each(lambda vector: vector.astype(np.float64) * 1e300),
    "smallest whole number": each(lambda vector: np.full(vector.shape, np.iinfo(np.int64).min)),
    "one too few": lambda vectors: vectors[1:],
    "one too many": lambda vectors: [*vectors, vectors[0]],
    "of another dim": each(lambda vector: vector[:, :8]),
    "of twice the dim": each(lambda vector: np.repeat(vector, 2, axis=1)),
    "flat": each(lambda vector: vector[0]),
    "three-dimensional": each(lambda vector: vector[None]),
    "none at all": lambda vectors: None,
    "none each": each(lambda vector: None),
    "a mapping": lambda vectors: dict(enumerate(vectors)),
    "complex": each(lambda vector: vector.astype(complex)),
    "strings": each(lambda vector: vector.astype(str)),
    "objects": each(lambda vector: vector.astype(object)),
    "truth values": each(lambda vector: vector > 0),
    "ragged lists": each(lambda vector: [[1.0] * 16, [1.0]]),
    "masked": each(lambda vector: np.ma.masked_array(vector, vector > 0)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_vectors_that_mean_nothing_are_neither_stored_nor_searched_with(path: Path, kind: str) -> None:
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(PASSAGES)
    broken = ChangedEncoder(BROKEN[kind])
    with np.errstate(all="ignore"), ColBERTIndex.open(path, broken) as index:
        calls: list[Callable[[], Any]] = [
            lambda: index.upsert([Passage("p1", "a new text"), Passage("new", "another new text")]),
            lambda: index.search("text"),
            lambda: index.search_many(["text", "other"]),
            lambda: index.rerank("text", ["p1"]),
            lambda: ColBERTScorer(broken).score("text", ["a text", "another"]),
        ]
        for call in calls:
            with pytest.raises(InvalidInputError, match="the model gave"):
                call()
        assert index.verify().passages == len(index) == len(PASSAGES)
        assert index.get(["p1"]) == [PASSAGES[1]]


def _read_only(vector: Any) -> Any:
    vector = vector.copy()
    vector.setflags(write=False)
    return vector


CONVERTED: dict[str, Callable[[list[Any]], Any]] = {
    "float64": each(lambda vector: vector.astype(np.float64)),
    "long double": each(lambda vector: vector.astype(np.longdouble)),
    "big-endian": each(lambda vector: vector.astype(">f4")),
    "lists": each(lambda vector: vector.tolist()),
    "lists of arrays": each(list),
    "a generator": lambda vectors: (vector for vector in vectors),
    "a tuple": tuple,
    "in Fortran's order": each(np.asfortranarray),
    "not contiguous": each(lambda vector: np.repeat(vector, 2, axis=1)[:, ::2]),
    "read-only": each(_read_only),
    "a mask that hides nothing": each(lambda vector: np.ma.masked_array(vector, vector > 5)),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_vectors_of_another_form_are_converted(path: Path, kind: str) -> None:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert(PASSAGES)
        expected = [index.search("text number 3", 5), index.rerank("text number 3", ["p1", "p2"])]
    with ColBERTIndex.create(path, ChangedEncoder(CONVERTED[kind])) as index:
        index.upsert(PASSAGES)
        assert [index.search("text number 3", 5), index.rerank("text number 3", ["p1", "p2"])] == expected
        assert index.verify().passages == len(PASSAGES)


def test_tensors_are_converted() -> None:
    torch = pytest.importorskip("torch")

    def scores(form: Callable[[Any], Any]) -> list[float]:
        with ColBERTIndex.create(None, ChangedEncoder(each(form))) as index:
            index.upsert(PASSAGES)
            return [hit.score for hit in index.search("text number 3", 5)]

    exact = scores(lambda vector: vector)
    assert scores(torch.tensor) == exact
    assert scores(lambda vector: torch.tensor(vector, requires_grad=True)) == exact
    rounded = scores(lambda vector: torch.tensor(vector).bfloat16())
    assert rounded == scores(lambda vector: torch.tensor(vector).bfloat16().float().numpy())
    with pytest.raises(InvalidInputError, match="the model gave a Tensor"):
        scores(lambda vector: torch.tensor(vector).to_sparse())


def test_a_text_of_no_tokens_given_as_an_empty_list(path: Path) -> None:
    with ColBERTIndex.create(path, ChangedEncoder(each(lambda vector: vector.tolist()))) as index:
        index.upsert([Passage("empty", "..."), Passage("full", "text")])
        assert [(hit.id, round(hit.score, 3)) for hit in index.search("text")] == [("full", 1.0), ("empty", -1.0)]
        # A query without a token says nothing of any passage.
        assert [(hit.id, hit.score) for hit in index.search("...")] == [("empty", 0.0), ("full", 0.0)]


class OfAnotherDim(ToyEncoder):
    """Encoder that claims to be the model of the index, with another dimension."""

    def __init__(self, dim: Any) -> None:
        super().__init__(dim=8)
        self.said = dim

    fingerprint = ToyEncoder().fingerprint  # type: ignore[assignment]

    @property
    def dim(self) -> Any:
        return self.said


@pytest.mark.parametrize("dim", [8, 0, None, 8.0, "8"])
def test_a_model_of_another_dim_than_the_index(path: Path, dim: Any) -> None:
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(PASSAGES)
    with ColBERTIndex.open(path, OfAnotherDim(dim)) as index:
        calls: list[Callable[[], Any]] = [
            lambda: index.search("text"),
            lambda: index.rerank("text", ["p1"]),
            lambda: index.upsert(["a new text"]),
        ]
        for call in calls:
            with pytest.raises(InvalidInputError, match="dim"):
                call()
        assert index.verify().passages == len(PASSAGES)


# --- the model of another index ---


def test_an_index_of_another_model(made: Path) -> None:
    other = ToyEncoder("other")
    for read_only in (False, True):
        with pytest.raises(ModelMismatchError, match=f"{ToyEncoder().fingerprint}.*other.*{other.fingerprint}"):
            ColBERTIndex.open(made, other, read_only=read_only)
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        assert answers(index)[-1] == len(PASSAGES)
        index.verify()


def test_a_reader_of_an_index_that_another_model_has_overwritten(made: Path) -> None:
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as reader:
        assert len(reader.search("text", 50)) == len(PASSAGES)
        with ColBERTIndex.create(made, ToyEncoder("other"), overwrite=True) as index:
            index.upsert(["text"])
            for call in (
                lambda: reader.search("text"),
                lambda: reader.search_many(["text"]),
                lambda: reader.rerank("text", ["p1"]),
            ):
                with pytest.raises(ModelMismatchError, match="Open it again"):
                    call()


# --- a second writer ---


def test_a_second_writer_in_this_process(index: ColBERTIndex) -> None:
    with pytest.raises(IndexLockedError, match="read_only=True"):
        ColBERTIndex.open(index.path, ToyEncoder())
    with pytest.raises(IndexLockedError):
        ColBERTIndex.create(index.path, ToyEncoder(), overwrite=True)
    with ColBERTIndex.open(index.path, ToyEncoder(), read_only=True) as reader:
        assert len(reader) == len(PASSAGES)


HOLD = """
import sys, time
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex
index = ColBERTIndex.open(sys.argv[1], ToyEncoder())
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_writer_in_another_process_until_that_one_is_killed(made: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(made)], stdout=subprocess.PIPE, env=child_env())
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(IndexLockedError, match=str(made)):
            ColBERTIndex.open(made, ToyEncoder())
        with pytest.raises(IndexLockedError):
            ColBERTIndex.create(made, ToyEncoder(), overwrite=True)
        child.send_signal(signal.SIGKILL)
        child.wait()
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        assert index.verify().passages == len(PASSAGES)
