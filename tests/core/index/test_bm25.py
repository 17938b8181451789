"""BM25 of an index against the formula in plain Python and against bm25s, in English and in scripts without spaces."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from format_2 import as_format_2
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, Hit, IndexFormatError, IndexReadOnlyError, InvalidInputError, Passage

TEXTS = {
    "law": "Newton's laws of motion, and the law of gravity",
    "fox": "The quick brown foxes are jumping over a lazy dog.",
    "dogs": "Dogs were running; a dog runs, and runners' dogs ran.",
    "wing": "Pressure distribution over a delta wing at supersonic speeds",
    "wings": "Delta wings, delta wings and delta wings: the pressures of high-speed flight",
    "empty": "",
    "number": "IL-2 and 3.14 in 2024",
}
QUERIES = ["laws of motion", "running dog", "delta wing pressure", "the", "il 2", "zebra", "foxes jump high", "!"]


@pytest.fixture
def index() -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([Passage(key, text, {"length": len(text)}) for key, text in TEXTS.items()])
        yield index


def bm25(index: ColBERTIndex, query: str, k: int = 10) -> list[Hit]:
    return index.search(query, k, search_type="bm25")


def ids(index: ColBERTIndex, query: str) -> list[str]:
    return [hit.id for hit in bm25(index, query)]


@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_those_of_the_formula(index: ColBERTIndex, query: str) -> None:
    pytest.importorskip("Stemmer")
    from plain_bm25 import plain_bm25

    expected = plain_bm25(query, TEXTS)
    hits = bm25(index, query)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-5)
    assert [hit.id for hit in hits] == sorted(expected, key=lambda key: (-expected[key], key))
    assert all(hit.score > 0 for hit in hits)
    assert bm25(index, query, 2) == hits[:2]


def test_the_order_is_that_of_bm25s(index: ColBERTIndex) -> None:
    bm25s = pytest.importorskip("bm25s")
    stemmer = pytest.importorskip("Stemmer").Stemmer("porter")
    texts = {key: text for key, text in TEXTS.items() if text}
    index.delete(["empty"])
    theirs = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    options = {"stopwords": [], "stemmer": stemmer, "token_pattern": "[a-z0-9]+", "show_progress": False}
    theirs.index(bm25s.tokenize(list(texts.values()), **options), show_progress=False)
    for query in ("motion laws gravity", "running dog", "delta wing pressure", "lazy foxes jump over dogs"):
        found, scores = theirs.retrieve(
            bm25s.tokenize([query], **options), corpus=list(texts), k=len(texts), show_progress=False
        )
        positive = [key for key, score in zip(found[0], scores[0], strict=True) if score > 0]
        assert ids(index, query) == positive


def test_equal_scores_come_by_id(index: ColBERTIndex) -> None:
    index.upsert([Passage(key, "zebra crossing") for key in ("z", "c", "x")])
    assert ids(index, "zebra") == ["c", "x", "z"]
    assert [hit.id for hit in bm25(index, "zebra", 2)] == ["c", "x"]


def test_a_hit_says_which_search_it_is_of(index: ColBERTIndex) -> None:
    assert [hit.note for hit in bm25(index, "fox")] == [{"search_type": "bm25"}]
    assert "note" not in index.search("fox", 1)[0].to_dict()


@pytest.mark.parametrize(
    "query",
    ['wing OR "', "wing AND NOT dog", "wing*", "terms:wing", "^wing", "NEAR(wing dog)", "-wing", "(wing", "wing)"],
)
def test_operators_are_words(index: ColBERTIndex, query: str) -> None:
    assert {"wing", "wings"} <= set(ids(index, query))


def test_filters_apply_before_the_ranking(index: ColBERTIndex) -> None:
    alone = bm25(index, "delta wing pressure")
    assert [hit.id for hit in alone] == ["wings", "wing"]
    short = index.search("delta wing pressure", 1, search_type="bm25", where={"length": {"$lt": 70}})
    assert [(hit.id, hit.score) for hit in short] == [(alone[1].id, alone[1].score)]
    some = index.search("delta wing pressure", 1, search_type="bm25", ids=["wing", "fox", "nobody"])
    assert [(hit.id, hit.score) for hit in some] == [(alone[1].id, alone[1].score)]
    assert index.search("delta", 5, search_type="bm25", where={"length": -1}) == []


def test_bm25_asks_nothing_of_the_model() -> None:
    encoder = ToyEncoder()
    with ColBERTIndex.create(None, encoder) as index:
        index.upsert([Passage("a", "one text")])
        path = index.path
        with ColBERTIndex.open(path, read_only=True) as reader:
            # The recorded model is none that could be loaded.
            assert [hit.id for hit in bm25(reader, "texts")] == ["a"]
    assert encoder.asked == []


def test_several_queries_at_once(index: ColBERTIndex) -> None:
    for kind in ("bm25", "hybrid"):
        together = index.search_many([*QUERIES, " "], 3, search_type=kind)
        assert together == [*(index.search(query, 3, search_type=kind) for query in QUERIES), []]


CHINESE = {"university": "中国人民大学在北京。", "people": "人民的大会", "one": "京", "latin": "Ａｃｍé 公司 2024"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("北京", ["university"]),
        ("京", ["one", "university"]),
        ("人民", ["people", "university"]),
        ("大学", ["university"]),
        ("acme公司", ["latin"]),
        ("ACMÉ", ["latin"]),
        ("司", ["latin"]),
        ("上海", []),
    ],
    ids=["two", "last character", "shared", "inside", "mixed", "accent", "end", "none"],
)
def test_chinese_by_pairs_of_characters(query: str, expected: list[str]) -> None:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([Passage(key, text) for key, text in CHINESE.items()])
        assert sorted(ids(index, query)) == expected


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("ラーメンを食べる", "らーめん ラーメン"),
        ("서울에서 만나요", "서울"),
        ("ไปโรงเรียน", "โรงเรียน"),
        ("हिन्दी में लिखा", "हिन्दी"),
        ("Überraschung im Café", "uberraschung cafe"),
        ("Άνθρωπος", "ανθρωπος"),
        ("שָׁלוֹם", "שלום"),
        ("straße", "STRASSE"),
        ("co\u00adoperate", "cooperate"),
        ("ﬁnal ２０２４", "final 2024"),
        ("Newton\u2019s", "newton"),
    ],
    ids=["japanese", "korean", "thai", "hindi", "german", "greek", "hebrew", "sharp s", "soft hyphen", "forms", "s"],
)
def test_other_scripts_and_forms(text: str, query: str) -> None:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([Passage("it", text), Passage("other", "something else, 其他")])
        assert ids(index, query) == ["it"]


def test_stop_words_count_only_by_themselves(index: ColBERTIndex) -> None:
    assert set(ids(index, "the")) == {"law", "fox", "wings"}
    assert ids(index, "the fox") == ["fox"]


def test_changes_are_searched_at_once(index: ColBERTIndex) -> None:
    with ColBERTIndex.open(index.path, ToyEncoder(), read_only=True) as reader:
        index.upsert([Passage("fox", "now a whale"), Passage("new", "fox")])
        index.delete(["wings"])
        for either in (index, reader):
            assert (ids(either, "whale"), ids(either, "fox"), ids(either, "delta")) == (["fox"], ["new"], ["wing"])
        index.compact()
        for either in (index, reader):
            assert (ids(either, "whale"), ids(either, "fox"), ids(either, "delta")) == (["fox"], ["new"], ["wing"])
            either.verify()


# --- indexes without a text index, and damaged ones ---


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def as_format_3(path: Path) -> Path:
    """Rewrite an index as one that was made before there were text indexes."""
    as_format_2(path)
    with ColBERTIndex.open(path, ToyEncoder()):
        pass
    from rerank_integrations.core.index.storage.catalog import tables_crc

    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
        connection.execute("DROP TABLE text_index")
        connection.execute("DROP TABLE text_lengths")
        connection.execute("UPDATE meta SET value = '3' WHERE key = 'format'")
        connection.execute("UPDATE meta SET value = ? WHERE key = 'tables_crc'", (str(tables_crc(connection)),))
        connection.commit()
    return path


@pytest.fixture
def made(tmp_path: Path) -> Path:
    with ColBERTIndex.create(tmp_path / "index", ToyEncoder()) as index:
        index.upsert([Passage(key, text) for key, text in TEXTS.items()])
    return tmp_path / "index"


@pytest.mark.parametrize("older", [as_format_2, as_format_3], ids=["format 2", "format 3"])
def test_an_index_of_an_older_version(made: Path, older: object) -> None:
    assert callable(older)
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        expected = [bm25(index, query) for query in QUERIES]
    older(made)
    stored = (made / "catalog.sqlite").read_bytes()
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as reader:
        reader.verify()
        assert reader.stats().text_bytes is None
        assert len(reader.search("fox", 20)) == len(TEXTS)
        for kind in ("bm25", "hybrid"):
            with pytest.raises(IndexReadOnlyError, match="rebuild_text_index"):
                reader.search("fox", search_type=kind)
    assert (made / "catalog.sqlite").read_bytes() == stored
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        index.upsert([Passage("later", "fox")])
        index.delete(["later"])
        index.verify()
        assert [bm25(index, query) for query in QUERIES] == expected
        index.upsert([Passage("later", "zebra")])
        assert ids(index, "zebra") == ["later"]
        index.verify()


def test_a_text_index_is_made_again(made: Path) -> None:
    change(made, "UPDATE text_lengths SET terms = terms + 1 WHERE pid = 2")
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        with pytest.raises(IndexFormatError, match="rebuild_text_index"):
            index.verify()
        index.rebuild_text_index()
        index.verify()
        assert ids(index, "fox") == ["fox"]


DAMAGE = {
    "lengths": "DELETE FROM text_lengths WHERE pid = 3",
    "more lengths": "INSERT INTO text_lengths VALUES (99, 3)",
    "no lists": "DELETE FROM text_index_data WHERE id > 10",
    "a list": "UPDATE text_index_data SET block = zeroblob(length(block)) WHERE id > 10",
    "another term": "UPDATE text_index_data SET block = CAST(replace(CAST(block AS TEXT), 'brown', 'brawn') AS BLOB)",
    "no look-up": "UPDATE text_index_idx SET pgno = 99",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found(made: Path, kind: str) -> None:
    change(made, DAMAGE[kind])
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index:
        with pytest.raises(IndexFormatError, match="text index"):
            index.verify()
        assert len(index.search("fox", 20)) == len(TEXTS)
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        index.rebuild_text_index()
        index.verify()
        assert ids(index, "fox") == ["fox"]


@pytest.mark.parametrize("value", ["both", "", None, 1], ids=str)
def test_another_kind_of_search_is_refused(index: ColBERTIndex, value: object) -> None:
    with pytest.raises(InvalidInputError, match="search_type"):
        index.search("fox", search_type=value)  # type: ignore[arg-type]
