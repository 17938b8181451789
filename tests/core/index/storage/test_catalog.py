"""Every changed value of the catalog is detected, nothing foreign is run or believed, and older formats open."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damaged_index import PASSAGES, answers, make_two_segments
from format_2 import as_format_2
from grown import small_copy
from toy import ToyEncoder

import rerank_integrations
from rerank_integrations import ColBERTIndex, IndexFormatError, ModelMismatchError, Passage, RerankError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_two_segments(tmp_path_factory.mktemp("sound") / "index")


@pytest.fixture
def made(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "index"))


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def rows(path: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
        return connection.execute(query).fetchall()


def verify(path: Path) -> str:
    """Return the message of `verify`'s error; nothing for a sound index."""
    with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as index:
        try:
            index.verify()
        except IndexFormatError as error:
            return str(error)
    return ""


# --- changes that SQLite takes for sound ---

CHANGES = {
    "a text": ("UPDATE passages SET text = replace(text, '7', '8') WHERE id = 'p7'", "'p7'"),
    "an id": ("UPDATE passages SET id = 'p70' WHERE id = 'p7'", "'p70'"),
    "metadata": ("UPDATE passages SET metadata = replace(metadata, '7', '8') WHERE id = 'p7'", "'p7'"),
    "two places": (
        "UPDATE passages SET ordinal = CASE id WHEN 'p7' THEN 3 WHEN 'p3' THEN 7 ELSE ordinal END + 100",
        "20 passages",
    ),
    "a token count": ("UPDATE passages SET tokens = 4 WHERE id = 'p7'", "'p7'"),
    "a segment": ("UPDATE passages SET segment = 'p7' WHERE id = 'p7'", "'p7'"),
    "a checksum of content": ("UPDATE passages SET content_crc = 5 WHERE id = 'p7'", "'p7'"),
    "a checksum of a place": ("UPDATE passages SET place_crc = NULL WHERE id = 'p7'", "'p7'"),
    "a passage less": ("DELETE FROM passages WHERE id = 'p7'", "add up"),
    "a passage more": (
        "INSERT INTO passages SELECT NULL, 'x', text, metadata, segment, 99, tokens, content_crc, place_crc "
        "FROM passages WHERE id = 'p7'",
        "add up",
    ),
    "bits per dimension": ("UPDATE meta SET value = '4' WHERE key = 'nbits'", "as they were written"),
    "the model's name": ("UPDATE meta SET value = replace(value, 'toy', 'tox') WHERE key = 'model'", "as they were"),
    "the generation": ("UPDATE meta SET value = value + 1 WHERE key = 'generation'", "as they were written"),
    "a fact more": ("INSERT INTO meta VALUES ('x', 'y')", "as they were written"),
    "the count of passages": ("UPDATE meta SET value = value + 1 WHERE key = 'passages'", "add up"),
    "the sum of checksums": ("UPDATE meta SET value = 'x' WHERE key = 'passages_crc'", "add up"),
    "the checksum of the facts": ("DELETE FROM meta WHERE key = 'tables_crc'", "as they were written"),
    "a segment's size": ("UPDATE segments SET tokens = tokens + 1", "does not sum to"),
    "a segment less": ("DELETE FROM segments WHERE number = 1", "point to vectors that no segment holds"),
    "the next number": ("UPDATE sqlite_sequence SET seq = 1", "as they were written"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_changed_value_is_found_by_verify(made: Path, kind: str) -> None:
    assert verify(made) == ""
    statement, message = CHANGES[kind]
    change(made, statement)
    assert message in verify(made)


def test_what_is_recorded_of_a_codec_is_covered(tmp_path: Path) -> None:
    path = small_copy(tmp_path / "index")
    assert verify(path) == ""
    change(path, "UPDATE codecs SET step = step * 1.5")
    assert "as they were written" in verify(path)


def test_all_damage_is_listed_at_once(made: Path) -> None:
    change(
        made,
        "UPDATE passages SET text = 'x' WHERE id IN ('p3', 'p4')",
        "UPDATE passages SET tokens = 9 WHERE id = 'p5'",
        "UPDATE meta SET value = '1' WHERE key = 'nbits'",
        "UPDATE passages SET metadata = '[]' WHERE id = 'p6'",
    )
    file = next(made.glob("segments/*/tokens.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found = verify(made)
    for sign in ("'p3', 'p4', 'p6'", "'p5'", "its own facts", str(file)):
        assert sign in found


# --- changes that this package makes ---


def test_checksums_follow_every_kind_of_write(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        assert index.verify().passages == 0
        index.upsert(PASSAGES)
        index.upsert([Passage("p1", "another text"), Passage("p2", PASSAGES[2].text, {"n": "other"}), PASSAGES[3]])
        index.upsert([Passage("new", "text"), Passage("new", "the last one stays")])
        assert index.delete(["p4", "p5", "unknown"]) == 2
        index.verify()
        index.compact()
        assert index.verify().passages == len(PASSAGES) - 1
        index.delete([passage.id for passage in index.get([*(p.id for p in PASSAGES), "new"])])
        assert index.verify().passages == 0
        index.upsert(PASSAGES)
        assert index.verify().passages == len(PASSAGES)
    with ColBERTIndex.create(path, ToyEncoder(), overwrite=True) as index:
        assert index.verify().passages == 0


def test_a_change_that_fails_leaves_the_checksums(made: Path) -> None:
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        with pytest.raises(RerankError):
            index.upsert([Passage("new", "text"), {"id": "bad", "text": 3}])  # type: ignore[list-item]
        index.upsert([Passage("new", "text")])
        index.verify()


@pytest.mark.parametrize("column", ["text = 'x'", "metadata = '{}'", "tokens = 7"])
def test_rewriting_does_not_make_a_damaged_row_look_sound(made: Path, column: str) -> None:
    change(made, f"UPDATE passages SET {column} WHERE id = 'p7'")
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        index.delete(["p1"])
        index.compact()
        with pytest.raises(IndexFormatError, match="'p7'"):
            index.verify()
        # A new text replaces all of the row.
        index.upsert([Passage("p7", "a new text")])
        assert index.verify().passages == len(PASSAGES) - 1


def test_deleting_what_is_damaged_makes_an_index_sound(made: Path) -> None:
    change(made, "UPDATE passages SET text = 'x' WHERE id = 'p7'")
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        index.delete(["p7"])
        assert index.verify().passages == len(PASSAGES) - 1


def test_nothing_is_written_over_damaged_facts(made: Path) -> None:
    """A new checksum over damaged values would make them look sound."""
    change(made, "UPDATE meta SET value = '4' WHERE key = 'nbits'")
    with ColBERTIndex.open(made, ToyEncoder()) as index:
        for write in (lambda: index.upsert([Passage("new", "text")]), lambda: index.delete(["p1"])):
            with pytest.raises(IndexFormatError, match="nothing was written"):
                write()
        assert answers(index)[-1] == len(PASSAGES)
    assert "as they were written" in verify(made)


# --- values of a wrong kind: never an exception of somebody else's ---

WRONG = [
    "UPDATE segments SET checksums = '{\"tokens\" 5}'",
    'UPDATE segments SET checksums = \'{"tokens": 5, "lengths": -1}\'',
    "UPDATE segments SET checksums = '[]'",
    "UPDATE segments SET passages = 'abc'",
    "UPDATE segments SET passages = -1",
    "UPDATE segments SET passages = 9223372036854775807",
    "UPDATE segments SET tokens = ''",
    "UPDATE segments SET tokens = 1e300",
    "UPDATE segments SET name = CAST(x'ff00' AS TEXT) WHERE number = 1",
    "UPDATE segments SET name = '../../elsewhere' WHERE number = 1",
    "UPDATE segments SET codec = 'none'",
    "UPDATE segments SET codec = x'00'",
    "UPDATE meta SET value = '{' WHERE key = 'model'",
    "UPDATE meta SET value = '[1]' WHERE key = 'model'",
    "UPDATE meta SET value = 'x' WHERE key = 'generation'",
    "UPDATE meta SET value = '-5' WHERE key = 'generation'",
    "UPDATE meta SET value = x'ff' WHERE key = 'generation'",
    "DELETE FROM meta WHERE key = 'nbits'",
    "UPDATE meta SET value = '99999999999999999999' WHERE key = 'nbits'",
    "UPDATE meta SET value = 'x' WHERE key = 'dim'",
    "UPDATE meta SET value = '17' WHERE key = 'dim'",
    "DELETE FROM meta WHERE key = 'dim'",
    "INSERT INTO meta VALUES (CAST(x'ff' AS TEXT), 'x')",
    "INSERT INTO meta VALUES (x'ff', x'ff')",
    "UPDATE passages SET metadata = '{' WHERE id = 'p7'",
    "UPDATE passages SET metadata = '[1]' WHERE id = 'p7'",
    "UPDATE passages SET metadata = 'null' WHERE id = 'p7'",
    "UPDATE passages SET metadata = x'7b7d' WHERE id = 'p7'",
    "UPDATE passages SET metadata = CAST(x'7b22ff' AS TEXT) WHERE id = 'p7'",
    f"UPDATE passages SET metadata = '{'[' * 100_000}' WHERE id = 'p7'",
    "UPDATE passages SET id = x'6161' WHERE id = 'p7'",
    "UPDATE passages SET id = '' WHERE id = 'p7'",
    "UPDATE passages SET id = CAST(x'ff' AS TEXT) WHERE id = 'p7'",
    "UPDATE passages SET text = x'ff' WHERE id = 'p7'",
    "UPDATE passages SET text = CAST(x'ff' AS TEXT) WHERE id = 'p7'",
    "UPDATE passages SET ordinal = 'abc' WHERE id = 'p7'",
    "UPDATE passages SET ordinal = 0.5 WHERE id = 'p7'",
    "UPDATE passages SET ordinal = -1 WHERE id = 'p7'",
    "UPDATE passages SET ordinal = 9223372036854775807 WHERE id = 'p7'",
    "UPDATE passages SET segment = x'00' WHERE id = 'p7'",
    "UPDATE passages SET tokens = 'many' WHERE id = 'p7'",
    "UPDATE passages SET tokens = 9223372036854775807",
    "UPDATE passages SET pid = -1 WHERE id = 'p7'",
]


NO_HARM_WITHOUT_CHECKSUMS = [
    *(statement for statement in WRONG if statement.endswith("WHERE key = 'model'")),
    "UPDATE passages SET pid = -1 WHERE id = 'p7'",
]


def use(path: Path) -> Iterator[str]:
    """Call every method that reads; yield the name of each call that raised an error of this package."""
    index = None
    try:
        index = ColBERTIndex.open(path, ToyEncoder(), read_only=True)
    except RerankError:
        # A damaged fingerprint is another model's.
        yield "open"
        return
    with index:
        calls = {
            "verify": index.verify,
            "search": lambda: index.search("number 7", 30),
            "where": lambda: index.search("number 7", 30, where={"n": {"$gt": 3}}),
            "rerank": lambda: index.rerank("number 7", ["p7", "p8"]),
            "get": lambda: index.get(["p7", "p8"]),
            "stats": index.stats,
            "len": index.__len__,
        }
        for name, call in calls.items():
            try:
                call()
            except RerankError:  # noqa: PERF203
                yield name


@pytest.mark.parametrize("statement", WRONG, ids=lambda statement: statement[:60])
def test_values_of_a_wrong_kind_are_named_as_damage(made: Path, statement: str) -> None:
    change(made, statement)
    assert {"open", "verify"} & set(use(made))
    # Of an older format there are no checksums to go by.
    as_format_2(made)
    refused = set(use(made))
    assert {"open", "verify"} & refused or statement in NO_HARM_WITHOUT_CHECKSUMS
    with contextlib.suppress(RerankError), ColBERTIndex.open(made, ToyEncoder()) as index:
        index.upsert([Passage("p7", "a new text")])
        index.delete(["p8"])
        index.compact()


def test_a_place_of_a_passage_that_is_not_there(made: Path) -> None:
    """SQLite answers from its own index, which may be damaged while the table is not."""
    catalog = made / "catalog.sqlite"
    ((segment, ordinal, pid),) = rows(made, "SELECT segment, ordinal, pid FROM passages WHERE id = 'p7'")
    content = catalog.read_bytes()
    cell = segment.encode() + bytes([ordinal, pid])
    assert content.count(cell) == 1
    catalog.write_bytes(content.replace(cell, cell[:-1] + bytes([pid + 100])))
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index:
        # Of all that tie with it for one place, too.
        for call in (lambda: index.search("number 7", 30), lambda: index.search("text", 1), index.verify):
            with pytest.raises(IndexFormatError, match="catalog"):
                call()


def everything(path: Path) -> Any:
    """Return the whole content of a catalog; ``None`` where SQLite cannot read it."""
    try:
        with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
            connection.text_factory = bytes
            tables = "meta", "codecs", "segments", "passages", "folders", "sqlite_sequence", "sqlite_master"
            return [sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in tables]
    except (sqlite3.Error, UnicodeDecodeError):
        return None


def flip(path: Path, flips: int, seed: int) -> None:
    catalog = path / "catalog.sqlite"
    sound, before = catalog.read_bytes(), everything(path)
    drawn = random.Random(seed)
    for _ in range(flips):
        place = drawn.randrange(len(sound))
        flipped = bytearray(sound)
        flipped[place] ^= 1 << drawn.randrange(8)
        catalog.write_bytes(flipped)
        refused = set(use(path))
        if everything(path) != before:
            assert {"open", "verify"} & refused, (seed, place)
    catalog.write_bytes(sound)
    assert verify(path) == ""


def test_any_flipped_bit_of_a_catalog_is_found_or_means_nothing(made: Path) -> None:
    flip(made, 60, seed=1)


def test_a_schema_that_sqlite_can_only_quote_in_bytes_that_are_no_text(made: Path) -> None:
    catalog = made / "catalog.sqlite"
    sound = catalog.read_bytes()
    assert sound.count(b"CREATE TABLE passages") == 1
    catalog.write_bytes(sound.replace(b"CREATE TABLE passages", b"CREATE TABL\xcc passages"))
    for read_only in (False, True):
        with pytest.raises(IndexFormatError, match="not a sound catalog"):
            ColBERTIndex.open(made, ToyEncoder(), read_only=read_only)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_many_flipped_bits_of_catalogs(tmp_path: Path, made: Path, seed: int) -> None:
    flip(made, 300, seed)
    flip(small_copy(tmp_path / "small"), 100, seed)


# --- catalogs that were made to do harm ---

FOREIGN = {
    "statistics that SQLite gathers": "ANALYZE",
    "a name that looks like one of SQLite's": "CREATE TABLE sqliteXtable (a)",
    "trigger": "CREATE TRIGGER x AFTER INSERT ON passages BEGIN DELETE FROM meta; END",
    "view": "CREATE VIEW x AS SELECT * FROM passages",
    "table": "CREATE TABLE x (y)",
    "index": "CREATE INDEX x ON passages (text)",
    "an index on an expression": "CREATE INDEX x ON passages (json(metadata))",
    "a generated column": "ALTER TABLE passages ADD COLUMN x TEXT AS (upper(text))",
    "a column with a default": "ALTER TABLE meta ADD COLUMN x TEXT DEFAULT 'y'",
    "another type": "ALTER TABLE segments RENAME COLUMN tokens TO x",
    "a table less": "DROP TABLE codecs",
    "an index less": "DROP INDEX passages_place",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_schema_that_is_not_an_indexs_is_refused(made: Path, kind: str) -> None:
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as beside:
        before = answers(beside)
        change(made, FOREIGN[kind])
        for read_only in (True, False):
            with pytest.raises(IndexFormatError, match=r"refused|damaged|not an index|unsafe"):
                ColBERTIndex.open(made, ToyEncoder(), read_only=read_only)
        for call in (lambda: beside.search("text"), lambda: beside.get(["p1"]), beside.verify):
            with pytest.raises(IndexFormatError):
                call()
    if kind in ("a table less", "an index on an expression"):
        # No tables of an index to go by, or none that SQLite would open.
        return
    # Whoever says so may have an index of his own in its place, and nothing of it stays.
    with ColBERTIndex.create(made, ToyEncoder(), overwrite=True) as index:
        index.upsert(PASSAGES)
        assert answers(index) == before
        assert index.verify().passages == len(PASSAGES)


def test_a_view_in_the_place_of_a_table_is_refused(made: Path) -> None:
    change(
        made,
        "ALTER TABLE passages RENAME TO x",
        "CREATE VIEW passages AS SELECT * FROM x",
    )
    with pytest.raises(IndexFormatError):
        ColBERTIndex.open(made, ToyEncoder(), read_only=True)


# --- the format before ---


@pytest.mark.parametrize("make", [make_two_segments, small_copy], ids=["exact", "compressed"])
def test_an_index_of_format_2_opens_as_it_is(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / "index")
    with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as index:
        before = index.search("red number 3", 30)
    as_format_2(path)
    stored = (path / "catalog.sqlite").read_bytes()
    with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as index:
        assert index.search("red number 3", 30) == before
        index.verify()
    assert (path / "catalog.sqlite").read_bytes() == stored


def test_a_writer_upgrades_beside_a_reader(made: Path) -> None:
    as_format_2(made)
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as reader:
        before = answers(reader)
        with ColBERTIndex.open(made, ToyEncoder()) as writer:
            assert answers(reader) == answers(writer) == before
            reader.verify()
            writer.upsert([Passage("new", "text")])
            writer.delete(["new"])
            writer.compact()
            assert answers(reader) == before
            assert writer.verify() == reader.verify()
    facts = dict(rows(made, "SELECT key, value FROM meta"))
    assert facts["format"] == "4"
    assert len(facts["index_id"]) == 32
    with ColBERTIndex.open(made, ToyEncoder()):
        pass
    assert dict(rows(made, "SELECT key, value FROM meta")) == facts
    change(made, "UPDATE passages SET text = 'x' WHERE id = 'p7'")
    assert "'p7'" in verify(made)


def test_a_refused_model_leaves_the_old_format(made: Path) -> None:
    as_format_2(made)
    with pytest.raises(ModelMismatchError):
        ColBERTIndex.open(made, ToyEncoder(name="another"))
    assert rows(made, "SELECT value FROM meta WHERE key = 'format'") == [("2",)]


def test_an_upgrade_that_fails_leaves_the_old_format(made: Path) -> None:
    as_format_2(made)
    change(made, "UPDATE passages SET text = CAST(x'ff' AS TEXT) WHERE id = 'p7'")
    with pytest.raises(IndexFormatError, match="not UTF-8"):
        ColBERTIndex.open(made, ToyEncoder())
    assert rows(made, "SELECT value FROM meta WHERE key = 'format'") == [("2",)]
    with ColBERTIndex.open(made, ToyEncoder(), read_only=True) as index:
        assert index.get(["p8"]) == [PASSAGES[8]]
        with pytest.raises(IndexFormatError, match="'p7'"):
            index.verify()


def test_every_index_has_an_id_of_its_own(tmp_path: Path, made: Path) -> None:
    query = "SELECT value FROM meta WHERE key = 'index_id'"
    other = make_two_segments(tmp_path / "other")
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    assert rows(made, query) != rows(other, query)
    assert rows(made, query) == rows(copy, query)
    before = rows(copy, query)
    with ColBERTIndex.create(copy, ToyEncoder(), overwrite=True):
        pass
    assert rows(copy, query) != before


def test_all_sql_stands_in_the_catalog() -> None:
    source = Path(rerank_integrations.__file__).parent
    callers = {path.name for path in source.rglob("*.py") if re.search(r"\.execute\w*\(", path.read_text("utf-8"))}
    assert callers == {"catalog.py", "text_index.py"}
