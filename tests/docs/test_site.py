"""The documentation as a site: every page is reached, and it works from disk without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bitsure.config.paths import PROJECT
from tests.builders.browser import chromium, needs_browser


def test_every_page_is_in_the_navigation():
    navigation = yaml.safe_load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = [page for entry in navigation for part in entry.values() for page in pages_of(part)]
    assert sorted(listed) == sorted(path.name for path in (PROJECT / "docs").glob("*.md"))


def pages_of(part: str | list[dict[str, str]]) -> list[str]:
    """Return the files of a part of the navigation: a page, or a list of them."""
    return [part] if isinstance(part, str) else [page for entry in part for page in entry.values()]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` builds it."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.slow
@needs_browser
def test_the_site_asks_nothing_of_a_network_and_its_search_works_from_disk(site):
    asked = []
    with chromium() as browser:
        shown = browser.new_page()
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto((site / "index.html").as_uri())
        shown.click("input[name=query]")
        shown.wait_for_function("document.querySelector('.md-search-result__meta').textContent.includes('Type to start')")
        shown.keyboard.type("hessian")
        shown.wait_for_selector(".md-search-result__item")
        assert "Quantizers" in shown.inner_text(".md-search-result__list")
    assert len(asked) > 5 and [url for url in asked if not url.startswith(site.as_uri())] == []
