"""The page in a real browser: searching, heat maps, documents, tokens; by keyboard, and without a serious axe finding.

`make browser` runs these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import pytest
from fastapi import FastAPI
from service import LetterEncoder, running

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Passage, rerank
from rerank_integrations.server import ServerSettings, create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

TOKEN = "das Wort für den Zugang 令牌"
QUERY = "light from solar panels"
CHINESE = "太阳能电池怎样发电？"
MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script> light &amp; rain"
PASSAGES = [
    Passage("solar", "Solar panels make electricity from light.", {"year": 2024}),
    Passage("river", "The river rose after the rain."),
    Passage("zip", "A zip file is read without extracting it."),
    Passage("emoji", "🌞🌞 light of the sun 🌞 and panels", {"note": "<b>bold</b>"}),
    Passage("<b>markup</b>", MARKUP, {"<i>key</i>": "<i>value</i>"}),
    Passage("zh", "太阳能电池板把光变成电。河水在雨后上涨。"),
]
# Loaded machines take their time.
PATIENCE_MS = 300_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.started() as started:
        yield started


@pytest.fixture(scope="module")
def made(colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> Callable[..., FastAPI]:
    """Return a function that makes an application over two indexes of the tiny models."""

    def make(**settings: Any) -> FastAPI:
        docs, empty = ColBERTIndex.create(None, colbert), ColBERTIndex.create(None, colbert)
        docs.upsert(PASSAGES, show_progress=False)
        chosen = ServerSettings(**{"writable": True, "timeout": 600.0, "write_timeout": 600.0, **settings})
        return create_app({"docs": docs, "empty": empty}, {"reader": cross_encoder}, chosen, bi_encoder=LetterEncoder())

    return make


@pytest.fixture(scope="module")
def served(made: Callable[..., FastAPI]) -> Iterator[FastAPI]:
    app = made()
    with running(app) as address:
        app.state.address = address
        yield app


class Visit:
    """A page in a fresh profile, with what it asked for and what it complained about."""

    def __init__(self, browser: Browser, address: str, *, width: int = 1280, scheme: str = "light") -> None:
        self.address = address
        height = 844 if width < 500 else 900
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))

    def expect_refusals(self, status: int) -> None:
        """Drop what the browser itself says about answers of this status, of which there must be some."""
        refused = [text for text in self.complaints if f"status of {status}" in text]
        assert refused
        self.complaints = [text for text in self.complaints if text not in refused]

    def open(self, path: str = "/") -> Page:
        self.page.goto(f"{self.address}{path}")
        return self.page

    def open_and_search(self, query: str = QUERY) -> Page:
        self.open()
        self.page.wait_for_selector("#index option", state="attached")
        self.page.fill("#question", query)
        self.page.press("#question", "Enter")
        self.page.wait_for_selector(".hit")
        return self.page

    def open_passage(self, passage_id: str, generation: str = "colbert") -> Page:
        column = self.page.locator(f"#column-{generation}")
        column.locator(".open").filter(has_text=passage_id).first.click()
        self.page.wait_for_selector("#passage[open] .heat")
        return self.page


@pytest.fixture
def visit(browser: Browser, served: FastAPI) -> Iterator[Callable[..., Visit]]:
    """Return a function that opens a page; at the end nothing has left the origin, and no page has complained."""
    visits: list[Visit] = []

    def make(address: str | None = None, **options: Any) -> Visit:
        visits.append(Visit(browser, address or served.state.address, **options))
        return visits[-1]

    try:
        yield make
    finally:
        for made_visit in visits:
            made_visit.context.close()
    for made_visit in visits:
        assert made_visit.requests
        assert [url for url in made_visit.requests if not url.startswith(f"{made_visit.address}/")] == []
        assert made_visit.complaints == []


def ids_in(page: Page, generation: str) -> list[str]:
    hits = page.locator(f"#column-{generation} .hit")
    return [str(hit.get_attribute("data-id")) for hit in hits.all()]


def test_three_columns_answer_as_the_library(
    visit: Callable[..., Visit], served: FastAPI, cross_encoder: CrossEncoderModel
) -> None:
    page = visit().open_and_search()
    index = served.state.service.indexes["docs"]
    assert ids_in(page, "colbert") == [hit.id for hit in index.search(QUERY)]
    asked = LetterEncoder().encode_query(QUERY)[0]
    cosines = {item.id: float(LetterEncoder().encode_query(item.text)[0] @ asked) for item in PASSAGES}
    dense = sorted(cosines, key=lambda key: (-cosines[key], key))
    assert ids_in(page, "bi-encoder") == dense
    by_cross_encoder = [hit.id for hit in rerank(QUERY, index.get(dense), cross_encoder)]
    assert ids_in(page, "cross-encoder") == by_cross_encoder
    text = page.inner_text("#column-cross-encoder")
    assert "Model: reader" in text
    assert "candidates of the bi-encoder" in text
    for name in ("bi-encoder", "cross-encoder", "colbert"):
        assert " ms" in page.inner_text(f"#column-{name} .latency")
    first = page.locator("#column-colbert .hit").first
    assert f"Bi-encoder {dense.index(ids_in(page, 'colbert')[0]) + 1}" in first.inner_text()
    assert "6 passages found" in page.inner_text("#status")


def test_everything_is_reached_by_the_keyboard(visit: Callable[..., Visit]) -> None:
    page = visit().open()
    page.wait_for_selector("#index option", state="attached")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "question"
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit")
    reached = []
    while not reached or reached[-1] != "files":
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert len(reached) < 100
    assert reached.count("open") == 18
    page.locator("#column-colbert .open").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#passage[open] mark")
    assert page.evaluate("document.getElementById('passage').contains(document.activeElement)")
    page.locator(".word").first.focus()
    page.keyboard.press("Space")
    assert page.get_attribute(".word >> nth=0", "aria-pressed") == "true"
    assert page.locator("mark.framed").count() > 0
    page.keyboard.press("Escape")
    page.wait_for_selector("#passage", state="hidden")
    assert page.evaluate("document.activeElement.className") == "open"
    assert page.evaluate("document.activeElement.closest('.column').dataset.generation") == "colbert"


@pytest.mark.parametrize(("passage_id", "query"), [("solar", QUERY), ("emoji", QUERY), ("zh", CHINESE)])
def test_the_heat_map_is_that_of_the_explanation(
    visit: Callable[..., Visit], colbert: ColBERTModel, passage_id: str, query: str
) -> None:
    opened = visit()
    opened.open_and_search(query)
    page = opened.open_passage(passage_id)
    text = next(passage.text for passage in PASSAGES if passage.id == passage_id)
    explanation = colbert.explain(query, text)
    matched = {
        (word.start, word.end): word.word for of_query in explanation.words() for word in of_query.matched if word.end
    }
    assert page.locator(".heat mark").all_text_contents() == [word for _, word in sorted(matched.items())]
    assert page.text_content(".heat") == text
    assert page.locator(".word").all_text_contents() == [word.query_word for word in explanation.words()]
    page.locator(".word").first.click()
    framed = {word.word for word in explanation.words()[0].matched if word.end}
    assert set(page.locator("mark.framed").all_text_contents()) == framed
    assert f"{explanation.score:.3f}" in page.inner_text("#passage-body")


def test_no_text_becomes_markup(visit: Callable[..., Visit]) -> None:
    opened = visit()
    opened.open_and_search("light <i>and</i> rain")
    page = opened.open_passage("<b>markup</b>")
    assert page.text_content("#passage-title") == "<b>markup</b>"
    assert page.text_content(".heat") == MARKUP
    page.click("#passage details summary")
    assert page.locator("#passage dl").all_text_contents() == ["<i>key</i><i>value</i>"]
    assert page.locator("main img, main b:not(.facts b), main i, dialog img, dialog i, dialog script").count() == 0
    assert page.title() == "Three generations of search"


def test_documents_are_stored_and_found(visit: Callable[..., Visit], tmp_path: Path) -> None:
    (tmp_path / "规则.csv").write_text("id,text\nlending,A book is lent for four weeks.\n", "utf-8")
    (tmp_path / "bad.csv").write_text("id,text\na,b,c\n", "utf-8")
    (tmp_path / "notes.md").write_text("# Notes\n\nThe library lends ladders.", "utf-8")
    opened = visit()
    page = opened.open()
    page.wait_for_selector("#upload:not([hidden])")
    page.select_option("#index", "empty")
    assert "no passages yet" in page.inner_text("#status")
    page.set_input_files("#files", [tmp_path / name for name in ("规则.csv", "bad.csv", "notes.md")])
    page.click("#store")
    page.wait_for_selector("#index option:checked:has-text('2 passages')", state="attached")
    lines = page.locator("#stored li").all_inner_texts()
    assert lines[0] == "规则.csv: 1 passage stored in empty."
    assert "bad.csv, line 2" in lines[1]
    assert lines[2] == "notes.md: 1 passage stored in empty."
    opened.expect_refusals(422)
    page.fill("#question", "how long is a book lent?")
    page.press("#question", "Enter")
    page.wait_for_selector(".hit")
    for name in ("bi-encoder", "cross-encoder", "colbert"):
        assert sorted(ids_in(page, name)) == ["lending", "notes.md#1"]


def test_an_index_without_passages_says_so(visit: Callable[..., Visit], made: Callable[..., FastAPI]) -> None:
    with running(made(writable=False)) as address:
        page = visit(address).open()
        page.wait_for_selector("#index option", state="attached")
        assert page.locator("#upload").is_hidden()
        assert "read-only" in page.inner_text("#documents-hint")
        page.select_option("#index", "empty")
        page.fill("#question", QUERY)
        page.press("#question", "Enter")
        page.wait_for_selector("#column-colbert .empty")
        assert "no passages yet" in page.inner_text("#status")


def test_what_the_server_lacks_is_explained(visit: Callable[..., Visit], colbert: ColBERTModel) -> None:
    index = ColBERTIndex.create(None, colbert)
    index.upsert(PASSAGES, show_progress=False)
    with running(create_app({"docs": index}, settings=ServerSettings(timeout=600.0))) as address:
        page = visit(address).open_and_search()
        assert "--bi-encoder" in page.inner_text("#column-bi-encoder .notice")
        assert "--reranker" in page.inner_text("#column-cross-encoder .notice")
        assert len(ids_in(page, "colbert")) == len(PASSAGES)


def test_the_token_is_asked_for_and_stays_in_the_tab(visit: Callable[..., Visit], made: Callable[..., FastAPI]) -> None:
    with running(made(token=TOKEN)) as address:
        opened = visit(address)
        page = opened.open()
        page.wait_for_selector("#access:not([hidden])")
        assert page.evaluate("document.activeElement.id") == "token"
        page.fill("#token", "a wrong one")
        page.press("#token", "Enter")
        page.wait_for_selector("text=did not accept this token")
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector("#index option", state="attached")
        page.fill("#question", QUERY)
        page.press("#question", "Enter")
        page.wait_for_selector(".hit")
        opened.open_passage("solar")
        page.reload()
        page.wait_for_selector(".hit")
        kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert kept == [0, 1, ""]
        assert TOKEN not in page.content()
        assert all(TOKEN not in url for url in opened.requests)
        page.click("#forget")
        page.wait_for_selector("#access:not([hidden])")
        assert page.evaluate("sessionStorage.length") == 0
        opened.expect_refusals(401)
        other = visit(address)
        other.open()
        other.page.wait_for_selector("#access:not([hidden])")
        other.expect_refusals(401)


def test_a_server_that_is_gone_is_reported(visit: Callable[..., Visit], made: Callable[..., FastAPI]) -> None:
    with contextlib.ExitStack() as stack:
        opened = visit(stack.enter_context(running(made())))
        page = opened.open()
        page.wait_for_selector("#index option", state="attached")
        stack.close()
        page.fill("#question", QUERY)
        page.press("#question", "Enter")
        page.wait_for_selector("text=The server cannot be reached")
    opened.complaints.clear()


def test_question_and_index_stand_in_the_address(visit: Callable[..., Visit]) -> None:
    opened = visit()
    page = opened.open_and_search()
    address = page.url.removeprefix(opened.address)
    assert "?" not in address
    other = visit()
    other.open(address)
    other.page.wait_for_selector(".hit")
    assert ids_in(other.page, "colbert") == ids_in(page, "colbert")


def findings(page: Page) -> list[tuple[str, Any]]:
    from axe_playwright_python.sync_playwright import Axe

    response = Axe().run(page).response
    assert response["passes"]
    violations = response["violations"]
    return [
        (violation["id"], [node["html"] for node in violation["nodes"]])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(visit: Callable[..., Visit], width: int, scheme: str) -> None:
    opened = visit(width=width, scheme=scheme)
    # The policy forbids what is not of this server; the check itself is run by the browser's own protocol.
    page = opened.open()
    page.wait_for_selector("#index option", state="attached")
    fits = "document.scrollingElement.scrollWidth <= window.innerWidth"
    assert findings(page) == []
    page.fill("#question", QUERY)
    page.press("#question", "Enter")
    page.wait_for_selector(".hit")
    assert findings(page) == []
    assert page.evaluate(fits)
    opened.open_passage("solar")
    page.wait_for_selector(".heat mark")
    assert findings(page) == []
    assert page.evaluate("document.querySelector('#passage').scrollWidth <= window.innerWidth")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, colour[4:-1].split(","))) < 384) == (scheme == "dark")
