"""Chromium for the tests of the page, by Playwright; `python -m chromium` prints its path, or why there is none."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium_path() -> str:
    """Return the path of the browser.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError(
        f"there is no browser: expected {', '.join(_NAMES)} on the PATH; on Debian: apt-get install chromium"
    )


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    """Start the browser without a window; each of its contexts has a profile of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=list(_ARGUMENTS), timeout=300_000)
        try:
            yield browser
        finally:
            browser.close()


if __name__ == "__main__":
    try:
        print(chromium_path())
    except FileNotFoundError as error:
        sys.exit(str(error))
