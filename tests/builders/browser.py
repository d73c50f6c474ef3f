"""A real browser, for tests of pages."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.builders.stopped_runs import MOST

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="no browser to look at pages with: `apt-get install chromium` and `pip install -r requirements.txt`",
)

SCREENS = pytest.mark.parametrize(
    ("width", "colours"),
    [
        (1400, "light"),
        (390, "dark"),
        (1000, "light"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1400, "dark", marks=pytest.mark.slow),
    ],
)


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield playwright's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, page: Path, width: int = 1400, **settings: Any) -> Iterator[Any]:
    """Yield a page of a file, as a screen of that many pixels shows it; requests and errors of it are in `page.troubles`."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
    context.set_default_timeout(1000 * MOST)
    shown = context.new_page()
    shown.troubles = []
    shown.on("pageerror", lambda error: shown.troubles.append(str(error)))
    shown.on("console", lambda message: shown.troubles.append(message.text))
    shown.on("request", lambda request: shown.troubles.append(request.url) if request.url != page.as_uri() else None)
    shown.goto(page.as_uri())
    yield shown
    context.close()


def cut_off(shown: Any) -> list[str]:
    """Return what a page shows beyond the right edge of the screen, or of the column that all its text stands in."""
    return shown.evaluate(
        """[...document.querySelectorAll("body *")]
            .filter((e) => !e.closest("thead") && !e.closest("svg"))
            .filter((e) => e.getBoundingClientRect().right > document.body.getBoundingClientRect().right + 1)
            .map((e) => `${e.tagName} ${e.className}: ${e.textContent.slice(0, 60)}`)"""
    )
