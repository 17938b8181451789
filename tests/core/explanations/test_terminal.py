"""The view of an explanation in a terminal."""

from __future__ import annotations

import re
import unicodedata
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from corpus import LONG_TEXT
from explained_texts import PAIRS, make_explanation
from rich.console import Console

from rerank_integrations import ColBERTModel, InvalidInputError

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")


ESCAPES = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("colour", [False, True])
def test_no_control_character_reaches_the_terminal(model: ColBERTModel, name: str, colour: bool) -> None:
    shown = model.explain(*PAIRS[name]).to_text(colour=colour)
    assert colour == ("\x1b[" in shown)
    # The styles of the view are the only escape sequences.
    plain = ESCAPES.sub("", shown) if colour else shown
    assert not [char for char in plain if unicodedata.category(char) == "Cc" and char != "\n"]
    assert "\u202e" not in plain
    assert "31m" not in plain or "␛[31m" in plain


def test_the_table_the_marks_and_the_sum() -> None:
    explanation = make_explanation(
        "read archives", "Reads an archive.", [("read", "Read", 0.5), ("archive", "archive", 0.75)]
    )
    shown = explanation.to_text(60)
    assert re.search(r"│ read +│ Reads +│ +0\.50 │ █{5} +│ 0\.50 │", shown)
    assert re.search(r"│ archives +│ archive +│ +0\.75 │ █{8} +│ 0\.75 │", shown)
    assert "«Reads 0.50» an «archive 0.75»." in shown
    assert "MaxSim 2.250 = 1.250 from these words + 1.000" in shown.replace("\n", " ")
    coloured = explanation.to_text(60, colour=True)
    assert ESCAPES.sub("", coloured).endswith("Reads an archive.\n")
    assert re.search(r"\x1b\[[\d;]+mReads\x1b\[0m an \x1b\[[\d;]+marchive\x1b\[0m\.", coloured)
    assert all(len(line) <= 40 for line in explanation.to_text(40).splitlines())


def test_the_terminal_shows_only_the_part_of_a_text_that_was_read(colbert_dir: Path) -> None:
    explanation = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=12).explain(
        "fire", LONG_TEXT
    )
    shown = explanation.to_text(200)
    assert f"read {explanation.read_to} of the text's {len(LONG_TEXT):,} characters" in shown
    assert shown.rstrip().endswith("...")
    assert "monastery" not in shown


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_characters_that_the_terminal_lacks_are_no_error(colbert: ColBERTModel, name: str, encoding: str) -> None:
    stream = TextIOWrapper(BytesIO(), encoding=encoding, errors="strict")
    Console(file=stream, width=80).print(colbert.explain(*PAIRS[name]).render())
    stream.flush()
    assert b"MaxSim" in stream.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [19, 0, True, 40.0, "80"])
def test_a_bad_width_is_an_error(colbert: ColBERTModel, width: object) -> None:
    with pytest.raises(InvalidInputError, match="width is"):
        colbert.explain("zip", "a zip").to_text(width)  # type: ignore[arg-type]
