"""What an index says of itself, and whether it is sound."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerank_integrations.core.index import segments
from rerank_integrations.core.index.catalog import Catalog, commit_seen, read_meta
from rerank_integrations.core.index.segments import check_segment, segment_records
from rerank_integrations.errors import IndexFormatError


@dataclass(frozen=True)
class IndexStats:
    """Counts and sizes.

    Parameters
    ----------
    passages, tokens, segments
        Passages that can be found, their token vectors, and the files' folders.
    bytes
        On disk, all together.
    vector_bytes
        Of those, what the tokens take: segments and codecs, without the catalog's texts, ids and metadata.
    dim
        Of a token vector; ``None`` before the first passage.
    bytes_per_token, bytes_per_passage
        `bytes` over `tokens` and over `passages`; 0.0 for an empty index.
    model
        The name or path of the model that made it.
    kind
        ``"exact"``: float16 vectors, every one of them scored; ``"plaid"``: compressed ones, searched by centroids.
    nbits
        Bits a dimension of a compressed residual.
    centroids
        Of the newest codec; 0 for an exact index.
    """

    passages: int
    tokens: int
    segments: int
    bytes: int
    vector_bytes: int
    dim: int | None
    bytes_per_token: float
    bytes_per_passage: float
    model: str
    kind: str
    nbits: int
    centroids: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True)
class VerifyReport:
    """What was found sound."""

    passages: int
    tokens: int
    segments: int


def collect_stats(connection: sqlite3.Connection, path: Path, meta: Mapping[str, str], model: str) -> IndexStats:
    """Count what the catalog and the files hold."""
    passages, tokens = connection.execute("SELECT count(*), coalesce(sum(tokens), 0) FROM passages").fetchone()
    size = sum(_sizes(path))
    # Named here, since the module of codecs imports numba.
    vectors = sum(sum(_sizes(path / folder)) for folder in (segments.FOLDER, "codecs"))
    codec = connection.execute("SELECT centroids FROM codecs ORDER BY number DESC LIMIT 1").fetchone()
    return IndexStats(
        passages=passages,
        tokens=tokens,
        segments=len(segment_records(connection)),
        bytes=size,
        vector_bytes=vectors,
        dim=int(meta["dim"]) if "dim" in meta else None,
        bytes_per_token=size / tokens if tokens else 0.0,
        bytes_per_passage=size / passages if passages else 0.0,
        model=model,
        kind="plaid" if codec else "exact",
        nbits=int(meta["nbits"]),
        centroids=codec[0] if codec else 0,
    )


def verify_index(catalog: Catalog, path: Path) -> VerifyReport:
    """Read everything and compare it with the catalog.

    Raises
    ------
    IndexFormatError
        Listing every problem found.
    """
    while True:
        with catalog.read() as connection:
            read_meta(connection, path)
            commit = commit_seen(connection)
            problems = list(_problems(connection, path))
            passages, tokens, count = connection.execute(
                "SELECT count(*), coalesce(sum(tokens), 0), (SELECT count(*) FROM segments) FROM passages"
            ).fetchone()
        if not problems:
            return VerifyReport(passages=passages, tokens=tokens, segments=count)
        with catalog.read() as connection:
            if commit_seen(connection) == commit:
                raise IndexFormatError(f"{path} is damaged: " + "; ".join(problems))
        # A writer has committed meanwhile, and may have removed files that it no longer needs: not damage.


def _sizes(path: Path) -> Iterator[int]:
    for folder, _, names in os.walk(path):
        for name in names:
            # A writer may remove files meanwhile.
            with contextlib.suppress(FileNotFoundError):
                yield (Path(folder) / name).stat().st_size


def _problems(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    for (finding,) in connection.execute("PRAGMA integrity_check").fetchall():
        if finding != "ok":
            yield f"catalog: {finding}"
    for record in segment_records(connection):
        yield from check_segment(path, record)
    yield from _codec_problems(connection, path)
    lost = connection.execute(
        "SELECT count(*) FROM passages LEFT JOIN segments ON segment = name "
        "WHERE name IS NULL OR ordinal NOT BETWEEN 0 AND segments.passages - 1"
    ).fetchone()[0]
    if lost:
        yield f"catalog: {lost} passages point to vectors that no segment holds"


def _codec_problems(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    query = "SELECT count(*) FROM segments LEFT JOIN codecs ON codec = codecs.name WHERE codec IS NOT NULL "
    lost = connection.execute(query + "AND codecs.name IS NULL").fetchone()[0]
    if lost:
        yield f"catalog: {lost} segments were made by codecs that it does not name"
    if connection.execute("SELECT count(*) FROM codecs").fetchone()[0]:
        from rerank_integrations.core.index.plaid.records import check_codec, codec_records

        for record in codec_records(connection):
            yield from check_codec(path, record)
