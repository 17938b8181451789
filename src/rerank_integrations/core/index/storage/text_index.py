"""SQL of the text index: SQLite's full-text tables in the catalog, which store the terms of every passage for BM25.

FTS5 stems the terms (Porter, English), stores where they occur, and merges its lists. It stores no text: the terms are
made from the passage again where it is replaced or removed. `text_lengths` has the number of terms of each passage.
Temporary triggers of the writing connection keep both, as they keep the checksums, so that a passage and its terms are
one commit.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.storage.catalog_rules import content_crc
from rerank_integrations.core.index.storage.connections import Connection
from rerank_integrations.core.index.storage.terms import RULES, QueryTerm, document_terms, terms_of_bytes
from rerank_integrations.errors import IndexFormatError, IndexReadError

# The tables, which the schema of the catalog has since format 4, and the key of `meta` that says that they are filled.
_COLUMNS = "terms, content='', columnsize=0, tokenize='porter ascii'"
TEXT_TABLES = f"""
CREATE VIRTUAL TABLE text_index USING fts5({_COLUMNS});
CREATE TABLE text_lengths (pid INTEGER PRIMARY KEY, terms INTEGER NOT NULL);
"""
# Tables with rows per passage, which have no part in the checksum of the small tables.
IS_TEXT_TABLE = "name = 'text_lengths' OR name = 'text_index' OR name GLOB 'text_index_*'"
TEXT_RULES = "text_index"

_OLD, _NEW = "CAST(old.text AS BLOB)", "CAST(new.text AS BLOB)"
_ADD = f"INSERT INTO text_index (rowid, terms) VALUES (new.pid, text_terms({_NEW}))"
_COUNT = f"INSERT INTO text_lengths VALUES (new.pid, term_count({_NEW}))"
# The terms of a damaged text are not those that were stored, and would leave these behind. Without its key the index is
# made again at the end of the transaction.
_SOUND = f"is_as_written(old.pid, CAST(old.id AS BLOB), {_OLD}, CAST(old.metadata AS BLOB), old.content_crc)"
_REMOVE = f"""INSERT INTO text_index (text_index, rowid, terms)
        SELECT 'delete', old.pid, text_terms({_OLD}) WHERE {_SOUND};
        DELETE FROM meta WHERE key = '{TEXT_RULES}' AND NOT {_SOUND};
        DELETE FROM text_lengths WHERE pid = old.pid"""
_WATCH = (
    f"""CREATE TEMP TRIGGER IF NOT EXISTS text_added AFTER INSERT ON main.passages BEGIN
        {_ADD}; {_COUNT}; END""",
    f"""CREATE TEMP TRIGGER IF NOT EXISTS text_rewritten AFTER UPDATE OF text ON main.passages
        WHEN old.text IS NOT new.text BEGIN
        {_REMOVE}; {_ADD}; {_COUNT}; END""",
    f"""CREATE TEMP TRIGGER IF NOT EXISTS text_removed AFTER DELETE ON main.passages BEGIN
        {_REMOVE}; END""",
)
# A row per occurrence, in the order of terms, passages and places.
_OCCURRENCES = "CREATE VIRTUAL TABLE temp.occurrences USING fts5vocab({}, text_index, instance)"


class TextReads:
    """Queries of a read transaction about the text index."""

    _connection: Connection

    def has_text_index(self) -> bool:
        """Return whether every passage's terms are stored, by the rules of this version."""
        return _is_filled(self._connection)

    def text_lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the catalog number of each passage, rising, and how many terms it has."""
        query = "SELECT json_group_array(pid), json_group_array(terms) FROM (SELECT * FROM text_lengths ORDER BY pid)"
        pids, terms = (_numbers(column) for column in self._connection.execute(query).fetchone())
        return pids, terms

    def text_bytes(self) -> int | None:
        """Return the size of the stored terms; ``None`` without a text index."""
        if not self.has_text_index():
            return None
        query = "SELECT coalesce(sum(length(block)), 0) FROM text_index_data"
        return int(self._connection.execute(query).fetchone()[0])

    def occurrences(self, term: QueryTerm) -> NDArray[np.int64]:
        """Return the catalog number of a passage for each occurrence of a stemmed term in it."""
        if term.is_prefix:
            # No character follows the last of Unicode.
            where, parameters = "term >= ? AND term < ?", [term.text, term.text + "\U0010ffff"]
        else:
            where, parameters = "term = ?", [term.text]
        query = f"SELECT json_group_array(doc) FROM temp.occurrences WHERE {where}"
        return _numbers(self._connection.execute(query, parameters).fetchone()[0])

    def text_problems(self) -> Iterator[str]:
        """Yield a sentence for each way in which the stored terms are not those of the passages."""
        if not self.has_text_index():
            return
        try:
            sound = _is_sound(self._connection)
        except sqlite3.DatabaseError:
            sound = False
        if not sound:
            yield "its text index does not have the terms of the passages; rebuild_text_index() makes it again"


def prepare_connection(connection: sqlite3.Connection) -> None:
    """Give a new connection what the queries and the triggers use."""
    connection.execute(_OCCURRENCES.format("main"))
    connection.create_function("text_terms", 1, lambda text: terms_of_bytes(text)[0], deterministic=True)
    connection.create_function("is_as_written", 5, _is_as_written, deterministic=True)
    connection.create_function("term_count", 1, lambda text: terms_of_bytes(text)[1], deterministic=True)


def watch_texts(connection: sqlite3.Connection) -> None:
    """Keep the terms of every passage that is changed from now on in this transaction, if the others' are stored."""
    if _is_filled(connection):
        # Older versions of SQLite let triggers write to a full-text table only so. The caller has compared the schema
        # with that of an index, so the file itself has nothing to trust.
        connection.execute("PRAGMA trusted_schema = ON")
        for statement in _WATCH:
            connection.execute(statement)


def distrust_schema(connection: sqlite3.Connection) -> None:
    """Let no trigger, view or column of the file use a function or a virtual table that may have an effect."""
    connection.execute("PRAGMA trusted_schema = OFF")


def mend_text_index(connection: sqlite3.Connection) -> None:
    """Make the text index again if a damaged text was replaced or removed in this transaction."""
    watched = "SELECT 1 FROM temp.sqlite_master WHERE type = 'trigger' AND name = 'text_removed'"
    if not _is_filled(connection) and connection.execute(watched).fetchone():
        fill_text_index(connection)


def fill_text_index(connection: sqlite3.Connection) -> None:
    """Store the terms of every passage, in place of whatever is stored, within the caller's transaction."""
    # Before the table is used: a damaged one would not let itself be emptied.
    connection.execute("DROP TABLE text_index")
    connection.execute("DROP TABLE text_lengths")
    create_text_tables(connection)
    terms = "SELECT pid, {}(CAST(text AS BLOB)) FROM passages ORDER BY pid"
    connection.execute(f"INSERT INTO text_index (rowid, terms) {terms.format('text_terms')}")
    connection.execute(f"INSERT INTO text_lengths {terms.format('term_count')}")
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (TEXT_RULES, RULES))


def create_text_tables(connection: sqlite3.Connection) -> None:
    """Make the empty tables."""
    for statement in TEXT_TABLES.split(";"):
        connection.execute(statement)


def require_fts5(connection: sqlite3.Connection) -> None:
    """Raise `IndexReadError` where Python's SQLite was built without its full-text search."""
    try:
        connection.execute("CREATE VIRTUAL TABLE temp.probe USING fts5(terms)")
        connection.execute("DROP TABLE temp.probe")
    except sqlite3.OperationalError as error:
        raise IndexReadError(
            f"this Python's SQLite {sqlite3.sqlite_version} was built without FTS5 ({error}), which an index needs; "
            "the builds of python.org, Debian, conda and uv have it"
        ) from error


def stemmed(terms: Sequence[QueryTerm]) -> list[QueryTerm]:
    """Return distinct terms as FTS5 stores them."""
    if not terms:
        return []
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE text_index USING fts5({_COLUMNS})")
        connection.execute(_OCCURRENCES.format("main"))
        rows = [(number, term.text) for number, term in enumerate(terms)]
        connection.executemany("INSERT INTO text_index (rowid, terms) VALUES (?, ?)", rows)
        stems = connection.execute("SELECT doc, term FROM temp.occurrences ORDER BY doc").fetchall()
    return list(dict.fromkeys(QueryTerm(stem, terms[number].is_prefix) for number, stem in stems))


def _is_as_written(pid: int, passage_id: bytes, text: bytes, metadata: bytes, crc: int) -> bool:
    """Return whether a row has the checksum that its columns give."""
    try:
        return content_crc(pid, passage_id.decode(), text.decode(), metadata.decode()) == crc
    except (UnicodeDecodeError, AttributeError):
        return False


def _is_filled(connection: sqlite3.Connection) -> bool:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (TEXT_RULES,)).fetchone()
    return row is not None and row[0] == RULES


def _is_sound(connection: sqlite3.Connection) -> bool:
    """Compare what is stored with an index made again, in a temporary file of SQLite's own."""
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as fresh:
        fresh.execute("PRAGMA synchronous = OFF")
        create_text_tables(fresh)
        fresh.execute(_OCCURRENCES.format("main"))
        fresh.execute("BEGIN")
        for pid, text in connection.execute("SELECT pid, CAST(text AS BLOB) FROM passages ORDER BY pid"):
            # A damaged row may have no text.
            terms = document_terms((text or b"").decode("utf-8", "ignore"))
            fresh.execute("INSERT INTO text_index (rowid, terms) VALUES (?, ?)", (pid, " ".join(terms)))
            fresh.execute("INSERT INTO text_lengths VALUES (?, ?)", (pid, len(terms)))
        fresh.execute("COMMIT")
        same = all(
            _same_rows(connection, fresh, query)
            for query in ("SELECT * FROM text_lengths ORDER BY pid", "SELECT term, doc, offset FROM temp.occurrences")
        )
    # A look-up goes through an index of the terms, the comparison above through the lists.
    lost = """SELECT count(*) FROM (SELECT DISTINCT term FROM temp.occurrences) AS stored
        WHERE NOT EXISTS (SELECT 1 FROM temp.occurrences AS looked_up WHERE looked_up.term = stored.term)"""
    return same and connection.execute(lost).fetchone()[0] == 0


def _same_rows(first: sqlite3.Connection, second: sqlite3.Connection, query: str) -> bool:
    pairs = itertools.zip_longest(first.execute(query), second.execute(query))
    return all(itertools.starmap(operator.eq, pairs))


def _numbers(column: str) -> NDArray[np.int64]:
    # Without a dtype, which would turn other numbers into whole ones.
    numbers = np.array(json.loads(column) or np.empty(0, dtype=np.int64))
    if numbers.dtype.kind != "i":
        raise IndexFormatError("the catalog is damaged: its text index counts in numbers that are not whole")
    return numbers.astype(np.int64)
