"""The page at ``/``: its files, the headers they come with, and that a token is asked for its data alone."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rerank_integrations import ColBERTIndex
from rerank_integrations.server import ServerSettings, create_app

FOLDER = files("rerank_integrations.server").joinpath("page")
NAMES = sorted(file.name for file in FOLDER.iterdir())
TOKEN = "the token of the tests"


def text_of(name: str) -> str:
    return FOLDER.joinpath(name).read_text("utf-8")


def path_of(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_sent_as_it_is_with_a_strict_policy(client: TestClient, name: str) -> None:
    response = client.get(path_of(name))
    assert (response.status_code, response.text) == (200, text_of(name))
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert response.headers["content-type"].startswith(kind[name.rpartition(".")[2]])
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = dict(item.split(" ", 1) for item in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert "unsafe" not in response.headers["content-security-policy"]
    head = client.head(path_of(name))
    assert (head.status_code, head.content) == (200, b"")


def test_the_page_names_files_of_its_own_alone() -> None:
    html = text_of("index.html")
    named = re.findall(r'(?:src|href)="([^"#][^"]*)"', html)
    assert sorted(named) == ["page/icon.svg", "page/page.css", "page/page.js"]
    imported = [
        name for script in NAMES if script.endswith(".js") for name in re.findall(r'from "(.*)"', text_of(script))
    ]
    assert {name.removeprefix("./") for name in imported} <= set(NAMES)
    for name in NAMES:
        text = text_of(name).replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert re.findall(r"https?://|//\w|url\(|@import", re.sub(r"^\s*// .*$", "", text, flags=re.MULTILINE)) == []
    # Neither is let in by the policy.
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", html) == []


def test_no_script_makes_markup_of_text() -> None:
    scripts = "".join(text_of(name) for name in NAMES if name.endswith(".js"))
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|srcdoc", scripts) == []


@pytest.mark.parametrize(
    "path", ["/page/", "/page/index.html", "/page/nothing.js", "/page/..%2Fapp.py", "/page/../app.py"]
)
def test_nothing_else_is_sent(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_page_is_free_and_its_data_need_the_token(index: ColBERTIndex) -> None:
    app = create_app({"toy": index}, settings=ServerSettings(token=TOKEN, writable=True, warm_up=False))  # type: ignore[arg-type]
    with TestClient(app) as client:
        assert [client.get(path_of(name)).status_code for name in NAMES] == [200] * len(NAMES)
        data: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "/v1/service", {}),
            ("POST", "/v1/compare", {"json": {"query": "light"}}),
            ("PUT", "/v1/files", {"params": {"name": "a.csv"}, "content": "text\na"}),
        ]
        for method, path, arguments in data:
            refused = client.request(method, path, **arguments)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            allowed = client.request(method, path, headers={"authorization": f"Bearer {TOKEN}"}, **arguments)
            assert allowed.status_code == 200, allowed.text
        assert client.get("/page/nothing.js").status_code == 401


def test_a_service_may_have_no_page(index: ColBERTIndex) -> None:
    with TestClient(create_app({"toy": index}, settings=ServerSettings(page=False, warm_up=False))) as client:
        assert [client.get(path_of(name)).status_code for name in NAMES] == [404] * len(NAMES)
        assert client.post("/v1/compare", json={"query": "light"}).status_code == 200


def test_the_service_describes_itself(app: FastAPI, client: TestClient) -> None:
    described = client.get("/v1/service").json()
    assert described["indexes"] == [{"name": "toy", "passages": 4, "model": "toy", "progress": None}]
    assert (described["bi_encoder"], described["rerankers"], described["writable"]) == (None, ["words"], True)
    settings = app.state.service.settings
    assert [described[name] for name in ("max_k", "max_texts", "max_body_bytes")] == [
        settings.max_k,
        settings.max_texts,
        settings.max_body_bytes,
    ]
    assert {".txt", ".md", ".csv", ".jsonl"} <= set(described["files"])
