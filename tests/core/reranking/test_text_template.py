"""Templates of the text that is scored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_integrations import InvalidInputError
from rerank_integrations.langchain._convert import TextTemplate

NAMES = st.sampled_from(["title", "page_content", "year", "é"])
PIECES = st.lists(NAMES.map(lambda name: f"{{{name}}}") | st.sampled_from([" ", ": ", "{{", "}}", "中。", "\n", "%s"]))


@given(
    pieces=PIECES.filter(lambda pieces: any(piece[0] == "{" and len(piece) > 2 for piece in pieces)),
    values=st.fixed_dictionaries(
        {name: st.text(st.characters(exclude_categories=["Cs"])) for name in ["title", "page_content", "year", "é"]}
    ),
)
def test_it_fills_as_str_format_does(pieces: list[str], values: dict[str, str]) -> None:
    template = "".join(pieces)
    assert TextTemplate(template).fill(values, "it") == template.format(**values)


def test_values_that_are_no_strings() -> None:
    template = TextTemplate("{title} ({year}) {tags}")
    assert template.fill({"title": None, "year": 2024, "tags": ["a"], "other": 1}, "it") == " (2024) ['a']"
    # What a value holds is text, never a template.
    assert template.fill({"title": "{year}", "year": "{", "tags": "}"}, "it") == "{year} ({) }"


@pytest.mark.parametrize(
    "template",
    ["", "no names", "{}", "{0}", "{title", "title}", "{title.upper}", "{title[0]}", "{title!r}", "{title:>9}", "{a b}",
     "{title.__class__}"],
)  # fmt: skip
def test_templates_that_are_none(template: str) -> None:
    with pytest.raises(InvalidInputError, match="template"):
        TextTemplate(template)


@pytest.mark.parametrize("template", [None, 7, b"{title}", ["{title}"]])
def test_templates_of_a_wrong_kind(template: Any) -> None:
    with pytest.raises(InvalidInputError, match="template is of type"):
        TextTemplate(template)


def test_a_name_without_a_value() -> None:
    with pytest.raises(InvalidInputError, match=r"document number 3 has no 'title' .* it has id, page_content"):
        TextTemplate("{title}").fill({"page_content": "x", "id": "y"}, "document number 3")
