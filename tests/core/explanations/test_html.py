"""The view of an explanation as a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from corpus import CHINESE, ENGLISH, LONG_TEXT
from explained_texts import PAIRS, make_explanation

from rerank_integrations import ColBERTModel

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")


VOID = {"meta"}


class Page(HTMLParser):
    """Parsed page, which checks that elements are closed in order and collects their attributes and texts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(f"{tag}.{attributes.get('class', '')}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().split(".")[0] == tag

    def handle_data(self, data: str) -> None:
        for name in self.open:
            self.texts[name] = self.texts.get(name, "") + data


ATTACK = """</script></style></div></mark><b onclick="alert(1)">zip</b> & 'q' "q" &amp; <!-- x --> {style}"""


@pytest.mark.parametrize("name", [*PAIRS, "attack"])
def test_the_page_contains_both_texts_and_loads_nothing(model: ColBERTModel, name: str) -> None:
    query, text = PAIRS.get(name, (ATTACK, f"{ATTACK} {ENGLISH[2]} {CHINESE[0]}"))
    explanation = model.explain(query, text)
    html = explanation.to_html()
    assert html.startswith('<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">')
    page = Page(html)
    cleaned = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)
    assert page.texts.get("div.text", "") == cleaned
    assert page.texts.get("p.query", "") == query
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "b", "img", "link", "iframe", "a", "base", "object"}
    names = {name for _, attributes in page.elements for name in attributes}
    assert names <= {
        "charset", "name", "content", "http-equiv", "class", "id", "title", "dir", "tabindex", "scope", "style"
    }  # fmt: skip
    assert not re.search(r"(?:src|href|url|@import)\s*[=(]", re.sub("<main>.*", "", html, flags=re.DOTALL))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) == len(explanation.words())
    html.encode()


def test_the_page_shows_which_word_matched_which() -> None:
    explanation = make_explanation(
        "em beddings", "an embedding <i>", [("em", "em", 0.9), ("bed", "bedding", 0.3), ("dings", "", 0.1)]
    )
    page = Page(explanation.to_html())
    marks = [attributes for tag, attributes in page.elements if tag == "mark" and "title" in attributes]
    assert [(match.get("id"), match["class"], match["title"]) for match in marks] == [
        ("q0", "s5", "embedding 0.90"),
        ("q1", "s1", "embedding 0.30, ([SEP]) 0.10"),
        (None, "s5 q0 q1", "em 0.90, beddings 0.30 (bed 0.30)"),
    ]
    assert [attributes["dir"] for _, attributes in page.elements if "dir" in attributes] == ["auto", "auto"]
    assert "0.400" in page.texts["table.words"]
    assert "([SEP])" in page.texts["table.words"]


def test_the_page_marks_the_part_that_was_not_read(colbert_dir: Path) -> None:
    explanation = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=12).explain(
        "fire", LONG_TEXT
    )
    page = Page(explanation.to_html())
    assert explanation.read_to is not None
    assert page.texts["span.unread"] == LONG_TEXT[explanation.read_to :]
    assert page.texts["div.text"] == LONG_TEXT
