"""Damage files of closed indexes at random: verify finds every change, and no damage crashes or harms the rest.

Four of five damages are met by a reader, which searches and verifies. The others are met by a writer; after the damaged
file is put back, all of the index must be there again.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from grown import KEPT, WORDS, many, small_copy
from row_encoder import RowEncoder, numbered
from toy import ToyEncoder, child_env

from rerank_integrations import ColBERTIndex, IndexFormatError, Passage, RerankError, export_colbert, import_colbert

# A case that takes longer than this hangs, however busy the machine is.
PATIENCE_S = 120
Encoder = ToyEncoder | RowEncoder
ROWS = RowEncoder(length=4)
QUERIES = {"toy": ["red fox", "frog 3"], "rows": ["3", "4000"]}


def run(count: int, seed: int) -> dict[str, int]:
    """Damage files `count` times, a sixth of them per kind of index, in child processes that may crash."""
    counts: Counter[str] = Counter(all=count, crashed=0, foreign=0, unseen=0, wrong=0, harmed=0)
    with tempfile.TemporaryDirectory(prefix="damages-") as folder:
        for place, (kind, make) in enumerate(KINDS.items()):
            path = Path(folder) / kind
            make(path)
            first, end = count * place // len(KINDS), count * (place + 1) // len(KINDS)
            while first < end:
                first, results = _in_child(kind, path, seed, first, end)
                counts.update(results)
    return dict(counts)


def _in_child(kind: str, path: Path, seed: int, first: int, end: int) -> tuple[int, Counter[str]]:
    """Run the cases from `first` on a copy of the index; return the number of the next case and the outcomes."""
    with tempfile.TemporaryDirectory(prefix="damaged-") as folder:
        copy = shutil.copytree(path, Path(folder) / "index")
        code = f"from endurance import damages; damages.cases({kind!r}, {str(copy)!r}, {seed}, {first}, {end})"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_env(), check=False)
    lines = ran.stdout.splitlines()
    if ran.stderr:
        print(ran.stderr, file=sys.stderr)
    results = Counter(line.split()[0] for line in lines if not line.startswith("sound"))
    for line in lines:
        if line.split()[0] not in ("sound", "found", "unused", "restored"):
            print(f"{kind}: {line}", file=sys.stderr)
    if ran.returncode:
        print(f"{kind}: case {first + len(lines)} ended the process with {ran.returncode}", file=sys.stderr)
        results["crashed"] += 1
        return first + len(lines) + 1, results
    return end, results


def cases(kind: str, folder: str, seed: int, first: int, end: int) -> None:
    """Damage, check and restore; print one line per case, which begins with its outcome."""
    path = Path(folder)
    encoder = ROWS if kind.startswith("rows") else ToyEncoder(dim=32) if kind == "imported" else ToyEncoder()
    originals = {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    files = [file for file in originals if file.name != "writer.lock"]
    dump = _dump(path)
    with ColBERTIndex.open(path, encoder, read_only=True) as index:
        before = _answers(index)
    for case in range(first, end):
        drawn = Random(f"{seed}-{case}")
        file = path / "catalog.sqlite" if drawn.random() < 0.25 else drawn.choice(files)
        how, damaged = _damage(drawn, originals[file], originals[drawn.choice(files)])
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        signal.alarm(PATIENCE_S)
        if drawn.random() < 0.2:
            word = _met_by_writer(path, encoder, before, originals)
        else:
            word = _met_by_reader(path, encoder, before)
            # What changes no row of the catalog lies in space that SQLite does not use.
            if word == "unseen" and file.name == "catalog.sqlite" and _dump(path) == dump:
                word = "unused"
        signal.alarm(0)
        print(word, case, how, file.relative_to(path), flush=True)
        _restore(path, originals)


def _damage(drawn: Random, content: bytes, other: bytes) -> tuple[str, bytes | None]:
    """Change a file's content; ``None`` removes the file."""
    size = len(content)
    start = drawn.randrange(size)
    length = drawn.choice([1, 16, 512, 4096])
    kinds: dict[str, Callable[[], bytes | None]] = {
        "bit": lambda: content[:start] + bytes([content[start] ^ 1 << drawn.randrange(8)]) + content[start + 1 :],
        "byte": lambda: content[:start] + bytes([drawn.randrange(256)]) + content[start + 1 :],
        "zeros": lambda: content[:start] + bytes(min(length, size - start)) + content[start + length :],
        "noise": lambda: content[:start] + drawn.randbytes(min(length, size - start)) + content[start + length :],
        "cut": lambda: content[:start],
        "longer": lambda: content + drawn.randbytes(length),
        "moved": lambda: content[start:] + content[:start],
        "other": lambda: other,
        "gone": lambda: None,
    }
    while True:
        how = drawn.choices(list(kinds), [8, 4, 2, 2, 2, 1, 1, 1, 1])[0]
        damaged = kinds[how]()
        if damaged != content:
            return how, damaged
        start = drawn.randrange(size)


def _met_by_reader(path: Path, encoder: Encoder, before: list[Any]) -> str:
    sound = False
    answers: list[Any] | None = None
    try:
        with ColBERTIndex.open(path, encoder, read_only=True) as index:
            with contextlib.suppress(RerankError):
                answers = _answers(index)
            try:
                index.verify()
                sound = True
            except IndexFormatError:
                pass
    except RerankError:
        pass
    except Exception as error:
        return f"foreign {error!r}"
    if not sound:
        return "found"
    return "unseen" if answers == before else "wrong"


def _met_by_writer(path: Path, encoder: Encoder, before: list[Any], originals: dict[Path, bytes]) -> str:
    try:
        ColBERTIndex.open(path, encoder).close()
    except RerankError:
        pass
    except Exception as error:
        return f"foreign {error!r}"
    if missing := [file for file in originals if not file.parent.is_dir()]:
        return f"harmed {len(missing)} files removed"
    _restore(path, originals)
    try:
        with ColBERTIndex.open(path, encoder, read_only=True) as index:
            index.verify()
            return "restored" if _answers(index) == before else "harmed"
    except RerankError as error:
        return f"harmed {error!r}"


def _answers(index: ColBERTIndex) -> list[Any]:
    queries = QUERIES["rows" if index.model.name == "rows" else "toy"]
    return [
        index.search_many(queries, 30),
        index.search(queries[0], 5, n_probe=1, n_candidates=8),
        index.search(queries[1], 10, where={"n": {"$lte": 2}}),
        index.rerank(queries[0], ["g3", "r00007", "p3", "red red fox"]),
        index.get(["g3", "g5", "r00007", "p3", "red red fox"]),
        len(index),
    ]


def _restore(path: Path, originals: dict[Path, bytes]) -> None:
    """Restore every file, and remove those that were added."""
    for file in [file for file in path.rglob("*") if file.is_file() and file not in originals]:
        file.unlink()
    for file, content in originals.items():
        if not file.exists() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _dump(path: Path) -> list[str] | None:
    """Return the catalog's content as SQL; ``None`` if SQLite cannot read it."""
    connection = sqlite3.connect(f"{(path / 'catalog.sqlite').as_uri()}?mode=ro&immutable=1", uri=True)
    with contextlib.closing(connection):
        try:
            return list(connection.iterdump())
        except (sqlite3.Error, UnicodeDecodeError):
            return None


# --- the kinds of index ---


def _exact(path: Path) -> None:
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert([Passage(f"p{number}", f"red frog number {number}", {"n": number}) for number in range(20)])


def _exact_with_dead_passages(path: Path) -> None:
    _exact(path)
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        index.upsert(
            [Passage(f"p{number}", f"blue fox {number}", {"n": number, "half": 0.5}) for number in range(9, 25)]
        )
        index.upsert([Passage("p1", "red frog number 1", {"only": "metadata"})])
        index.delete(["p4", "p12"])


def _compressed(path: Path) -> None:
    small_copy(path)


def _grown_by_segments(path: Path) -> None:
    """Make an index of one bit per dimension, with passages added after its compression."""
    with ColBERTIndex.create(path, ToyEncoder(), nbits=1) as index:
        index.upsert(many(4096))
        index.upsert([Passage(f"new{number}", f"{WORDS[number]} fox", {"n": number}) for number in range(3)])
        index.upsert(KEPT.values())
        index.delete([f"g{number}" for number in range(100, 4096)])


def _rows_with_inverted_lists(path: Path) -> None:
    with ColBERTIndex.create(path, ROWS, nbits=4) as index:
        index.upsert(numbered(range(4200)))


def _imported(path: Path) -> None:
    words = ("red", "green", "blue", "fox", "frog", "whale", "old", "young")
    texts = [f"{first} {second} {third}" for first in words for second in words for third in words]
    with tempfile.TemporaryDirectory() as folder, ColBERTIndex.create(None, ToyEncoder(dim=32)) as index:
        index.upsert([Passage(text, text, {"n": place}) for place, text in enumerate(texts)])
        source = export_colbert(index, Path(folder) / "theirs")
        import_colbert(source, path, ToyEncoder(dim=32)).close()


KINDS: dict[str, Callable[[Path], object]] = {
    "exact": _exact,
    "exact_with_dead_passages": _exact_with_dead_passages,
    "compressed": _compressed,
    "grown_by_segments": _grown_by_segments,
    "rows_with_inverted_lists": _rows_with_inverted_lists,
    "imported": _imported,
}
