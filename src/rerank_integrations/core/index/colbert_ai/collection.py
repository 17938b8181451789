"""The texts, ids and metadata that belong to an index of colbert-ai, which itself holds vectors only."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rerank_integrations.core.index.colbert_ai.json_files import brief, read_json
from rerank_integrations.core.index.colbert_ai.read import ColbertAIIndex
from rerank_integrations.core.index.storage.validation import metadata_json
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexFormatError, InvalidInputError

COLLECTION_JSON = "collection.json"
COLLECTION_TSV = "collection.tsv"
PID_DOCID_MAP = "pid_docid_map.json"
DOCID_METADATA_MAP = "docid_metadata_map.json"

_METADATA_BYTES = 1 << 32
_EXPECTED = (
    "a .tsv file of lines 'pid<tab>text' or 'pid<tab>text<tab>title', pids counting from 0, "
    "or a .json file of a list of strings"
)


@dataclass(frozen=True, eq=False)
class Collection:
    """The passages of an index: as many as it has vectors for, each of which can be stored.

    Iterating gives ``(pid, passage)`` in the order of the index, where pid is the passage's number in it. Numbers that
    are left out belong to passages that were removed. Every iteration reads a ``.tsv`` file again.

    Parameters
    ----------
    path
        The file with the texts.
    ids
        The id of each passage that was not removed, by pid, in order.
    """

    path: Path
    ids: dict[int, str]
    _metadata: dict[int, dict[str, Any]]
    _texts: Callable[[], Iterator[str]]
    _text_pids: range | list[int]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[int, Passage]]:
        for pid, text in zip(self._text_pids, self._texts(), strict=True):
            if pid in self.ids:
                yield pid, Passage(self.ids[pid], text, self._metadata.get(pid, {}))


def read_collection(index: ColbertAIIndex, path: str | os.PathLike[str] | None = None) -> Collection:
    """Find the texts, ids and metadata of an index, and check them all.

    The ids are those of RAGatouille's ``pid_docid_map.json`` if the index folder holds one, else the passage numbers. A
    document that RAGatouille has cut into several passages gives each an id of its own, ``{document id}#{1, 2, ...}``,
    and ``document_id`` in its metadata (unless the document's own metadata has one). Metadata is that of
    ``docid_metadata_map.json``.

    Parameters
    ----------
    index
        The opened index.
    path
        The collection that was indexed: a ``.tsv`` file as colbert-ai reads it (a title is put before the text, as
        there: ``title | text``), or a ``.json`` list of strings. By default ``collection.json`` or ``collection.tsv``
        in the index folder; a path that the index's metadata names is never followed.

    Raises
    ------
    InvalidInputError
        If there is no such file.
    IndexFormatError
        If a file is damaged, or its passages are not those of the index.
    """
    source = _find(index.path, path)
    documents = _document_ids(index.path)
    lengths = np.concatenate(index.lengths)
    if documents is None:
        # colbert-ai's IndexUpdater removes a passage by removing its tokens; every text has some.
        ids = {pid: str(pid) for pid in np.flatnonzero(lengths).tolist()}
    else:
        _require_known(index.path / PID_DOCID_MAP, documents, lengths)
        ids = _unique_ids(documents)
    texts = _texts(source)
    count = sum(1 for _ in texts())
    if count == len(lengths):
        text_pids: range | list[int] = range(count)
    elif documents is not None and count == len(documents):
        # RAGatouille removes deleted texts from its collection, while the numbers in the index stay.
        text_pids = sorted(documents)
    else:
        raise IndexFormatError(f"{source} holds {count} passages; expected {len(lengths)}, those of {index.path}")
    collection = Collection(source, ids, _metadata(index.path, documents), texts, text_pids)
    _require_storable(collection)
    return collection


def _require_storable(collection: Collection) -> None:
    try:
        for _, passage in collection:
            metadata_json(passage)
    except InvalidInputError as error:
        raise IndexFormatError(f"{collection.path}, with the ids and metadata beside it: {error}") from error


def _find(folder: Path, path: str | os.PathLike[str] | None) -> Path:
    if path is None:
        for name in (COLLECTION_JSON, COLLECTION_TSV):
            if (folder / name).is_file():
                return folder / name
        raise InvalidInputError(
            f"{folder} holds no {COLLECTION_JSON} and no {COLLECTION_TSV}, so its texts are unknown; "
            f"pass the collection that was indexed: {_EXPECTED}"
        )
    if not isinstance(path, str | os.PathLike) or Path(path).suffix not in (".tsv", ".json"):
        raise InvalidInputError(f"collection is {path!r}; expected the path of {_EXPECTED}")
    if not Path(path).is_file():
        raise InvalidInputError(f"collection {path} does not exist; expected {_EXPECTED}")
    return Path(path).absolute()


def _texts(source: Path) -> Callable[[], Iterator[str]]:
    if source.suffix == ".tsv":
        return lambda: _tsv_texts(source)
    texts = read_json(source, list)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise IndexFormatError(f"{source} has a {type(text).__name__} at place {position}; expected {_EXPECTED}")
    return lambda: iter(texts)


def _tsv_texts(source: Path) -> Iterator[str]:
    try:
        with source.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                pid, *fields = line.strip("\n\r ").split("\t")
                if not fields or not _is_pid(pid, number):
                    raise IndexFormatError(
                        f"{source}, line {number + 1}: {line.rstrip()[:80]!r}; expected pid {number}, a tab and a text"
                    )
                # A third field is a title; colbert-ai ignores further ones.
                yield f"{fields[1]} | {fields[0]}" if len(fields) > 1 else fields[0]
    except UnicodeDecodeError as error:
        raise IndexFormatError(f"{source} is not UTF-8: {error}") from error
    except OSError as error:
        raise IndexFormatError(f"{source} cannot be read: {error}") from error


def _is_pid(pid: str, number: int) -> bool:
    # colbert-ai takes a header line for a passage of its own, and counts it.
    return pid == "id" or (pid.isascii() and pid.strip().isdigit() and len(pid) < 20 and int(pid) == number)


def _document_ids(folder: Path) -> dict[int, str] | None:
    path = folder / PID_DOCID_MAP
    if not path.exists():
        if (folder / DOCID_METADATA_MAP).exists():
            raise IndexFormatError(f"{folder} holds {DOCID_METADATA_MAP} but no {PID_DOCID_MAP}; expected both")
        return None
    documents: dict[int, str] = {}
    for key, document in read_json(path, dict).items():
        if not (key.isascii() and key.isdigit()) or str(int(key[:20])) != key:
            raise IndexFormatError(f"{path} has the key {brief(key)}; expected the number of a passage")
        if not isinstance(document, str | int) or isinstance(document, bool) or document == "":
            raise IndexFormatError(
                f"{path} gives passage {key} the document id {brief(document)}; expected a non-empty string"
            )
        documents[int(key)] = str(document)
    return dict(sorted(documents.items()))


def _require_known(path: Path, documents: dict[int, str], lengths: Any) -> None:
    last = max(documents, default=-1)
    if last >= len(lengths):
        raise IndexFormatError(f"{path} tells of passage {last}; expected 0 to {len(lengths) - 1}, those of the index")
    missing = [pid for pid in np.flatnonzero(lengths).tolist() if pid not in documents]
    if missing:
        raise IndexFormatError(
            f"{path} lacks {len(missing)} of the index's passages, {missing[0]} for one; expected all"
        )


def _unique_ids(documents: dict[int, str]) -> dict[int, str]:
    passages = Counter(documents.values())
    taken = set(passages)
    numbers: Counter[str] = Counter()
    ids: dict[int, str] = {}
    for pid, document in documents.items():
        ids[pid] = document
        if passages[document] > 1:
            numbers[document] += 1
            ids[pid] = f"{document}#{numbers[document]}"
            while ids[pid] in taken:
                ids[pid] += "#"
            taken.add(ids[pid])
    return ids


def _metadata(folder: Path, documents: dict[int, str] | None) -> dict[int, dict[str, Any]]:
    path = folder / DOCID_METADATA_MAP
    if documents is None:
        return {}
    known = read_json(path, dict) if path.exists() else {}
    for document, metadata in known.items():
        if metadata is not None and not isinstance(metadata, dict):
            raise IndexFormatError(f"{path} gives document {brief(document)} {brief(metadata)}; expected a JSON object")
    passages = Counter(documents.values())
    # Each passage has its document's: a file of a megabyte could ask for a terabyte.
    stored = sum(len(json.dumps(metadata)) * passages[document] for document, metadata in known.items() if metadata)
    if stored > _METADATA_BYTES:
        raise IndexFormatError(
            f"{path} gives the passages {stored} bytes of metadata in all; expected at most {_METADATA_BYTES}"
        )
    metadata_of: dict[int, dict[str, Any]] = {}
    for pid, document in documents.items():
        metadata = known.get(document) or {}
        metadata_of[pid] = {"document_id": document, **metadata} if passages[document] > 1 else metadata
    return metadata_of
