"""Arguments and options that several commands share, and how they read files and the standard input."""

from __future__ import annotations

import json
import re
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rerank_integrations.core.models import CrossEncoderModel
from rerank_integrations.core.reranking.remote import RemoteReranker
from rerank_integrations.core.reranking.specs import load_cross_encoder
from rerank_integrations.errors import InvalidInputError

STDIN = Path("-")
# Python passes on undecodable bytes of an argument as surrogates, which neither models nor indexes take.
_SURROGATES = re.compile("[\ud800-\udfff]")


class SearchKind(str, Enum):
    """Kind of a search of an index."""

    COLBERT = "colbert"
    BM25 = "bm25"
    HYBRID = "hybrid"


class ModelKind(str, Enum):
    """The two kinds of model."""

    COLBERT = "colbert"
    CROSS_ENCODER = "cross-encoder"


def as_unicode(text: str | None) -> str | None:
    """Return an argument with a replacement character for each byte that the terminal's encoding lacks."""
    return None if text is None else _SURROGATES.sub("\ufffd", text)


AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON document instead of text.")]
IndexPath = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")]
Query = Annotated[str, typer.Argument(help="The question.", callback=as_unicode)]
Collection = Annotated[Path, typer.Argument(metavar="DATA", help="A test collection: a folder in BEIR layout.")]
Split = Annotated[str, typer.Option(help="Name of the relevance judgements to use: qrels/SPLIT.tsv.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that comes with the checkpoint.")
]
# Of the commands that serve.
ServedIndexes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME=]INDEX...", help="Folders of indexes; the name is that of the folder by default."),
]
ServedCrossEncoders = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]MODEL",
        help="Cross-encoder to offer, also 'starter', or the address of a reranking service, or JSON of "
        "RemoteReranker's arguments; repeat it for several.",
    ),
]
ServedColberts = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]MODEL", help="ColBERT model to offer without an index; repeat it for several."),
]
ModelOfIndexes = Annotated[
    str | None,
    typer.Option(help="Checkpoint name or path of all indexes. \\[default: the one that each names on the hub]"),
]


def is_remote(reranker: str) -> bool:
    """Return whether an argument is the address of a service, or an object of `RemoteReranker`'s arguments."""
    return reranker.startswith(("http://", "https://", "{"))


def load_reranker(reranker: str) -> RemoteReranker | CrossEncoderModel:
    """Return the reranker that an argument names: a cross-encoder by its name or path, or a service.

    Raises
    ------
    InvalidInputError
        For an object that is not JSON, or has other arguments than those of `RemoteReranker`, or a key among them.
    """
    if not is_remote(reranker):
        return CrossEncoderModel(reranker)
    if not reranker.startswith("{"):
        return RemoteReranker(reranker)
    # Other users of the machine see the arguments of a process, so no message needs to hide the rest.
    try:
        arguments = json.loads(reranker)
    except ValueError as error:
        raise InvalidInputError(f"the reranker {reranker!r} is not JSON ({error}); expected an object") from error
    if "url" not in arguments or "api_key" in arguments:
        raise InvalidInputError(
            f"the reranker has {sorted(arguments)}; expected url and other arguments of RemoteReranker, and for a key "
            "api_key_env, the name of an environment variable"
        )
    scorer = load_cross_encoder(arguments)
    assert isinstance(scorer, RemoteReranker)
    return scorer


def read_text(file: Path) -> str:
    """Return the text of a UTF-8 file, or of the standard input for `STDIN`.

    Raises
    ------
    InvalidInputError
        If it is not UTF-8.
    """
    data = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file_name(file)}: not UTF-8 ({error.reason}); expected UTF-8") from error


def file_name(file: Path) -> str:
    """Return the name of a file for messages."""
    return "standard input" if file == STDIN else str(file)
