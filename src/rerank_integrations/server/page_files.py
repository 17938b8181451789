"""The page at ``/``: static files of the package, sent with headers that let it load nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

page = APIRouter(include_in_schema=False)

_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "service.js": "text/javascript; charset=utf-8",
    "results.js": "text/javascript; charset=utf-8",
    "heat_map.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_CONTENTS = {name: files(__package__).joinpath("page").joinpath(name).read_bytes() for name in _TYPES}
_HEADERS = {
    # Scripts and styles of this server alone, none within the page; no text can become markup.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

# These contain nothing of the indexes, so that a browser need not send a token for them.
PAGE_PATHS = frozenset({"/", *(f"/page/{name}" for name in _TYPES if name != "index.html")})


@page.api_route("/", methods=["GET", "HEAD"])
async def index_page() -> Response:
    """Return the page."""
    return _response("index.html")


@page.api_route("/page/{name}", methods=["GET", "HEAD"])
async def page_file(name: str) -> Response:
    """Return a script, the style sheet or the icon of the page."""
    if f"/page/{name}" not in PAGE_PATHS:
        raise HTTPException(404)
    return _response(name)


def _response(name: str) -> Response:
    return Response(_CONTENTS[name], media_type=_TYPES[name], headers=_HEADERS)
