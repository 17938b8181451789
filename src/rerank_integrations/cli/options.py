"""Arguments and options that several commands share, and how they read files and the standard input."""

from __future__ import annotations

import re
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rerank_integrations.errors import InvalidInputError

STDIN = Path("-")
# Python passes on undecodable bytes of an argument as surrogates, which neither models nor indexes take.
_SURROGATES = re.compile("[\ud800-\udfff]")


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
    typer.Option(metavar="[NAME=]MODEL", help="Cross-encoder to offer, also 'starter'; repeat it for several."),
]
ServedColberts = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]MODEL", help="ColBERT model to offer without an index; repeat it for several."),
]
ModelOfIndexes = Annotated[
    str | None,
    typer.Option(help="Checkpoint name or path of all indexes. \\[default: the one that each names on the hub]"),
]


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
