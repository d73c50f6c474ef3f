"""A sweep's page in a real browser: on a wide screen and a phone, with and without its script."""

from __future__ import annotations

import pytest

from bitsure.sweep.report.building import build_sweep_report
from tests.builders.browser import SCREENS, cut_off, needs_browser, opened
from tests.builders.sweeps import leave_unfinished, write_quantized

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "made"
    for quantizer, lost in (("gptq8", 0), ("gptq4", 0), ("rtn2", 120)):
        cell = write_quantized(folder, quantizer, lost)
        (cell / "report.html").write_text("<h1>a cell's page</h1>", encoding="utf-8")
    leave_unfinished(folder, "broken", state="failed", error="no memory")
    return build_sweep_report(folder).page


@SCREENS
def test_nothing_is_cut_off_or_loaded(browser, page, width, colours):
    with opened(browser, page, width, color_scheme=colours) as shown:
        shown.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
        assert cut_off(shown) == [] and shown.troubles == []
        assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_the_choice_is_on_the_first_screen_and_the_matrix_leads_to_the_cells(browser, page):
    with opened(browser, page, java_script_enabled=False) as shown:
        choice = shown.locator("header .badge", has_text="choose gptq4")
        assert choice.bounding_box()["y"] < 300 and shown.locator("figure svg:visible").count() > 5
        assert shown.locator(".matrix .badge.failed").inner_text() == "failed"
        shown.locator(".matrix tr", has=shown.get_by_text("m", exact=True)).locator("a").first.click()
        assert shown.locator("h1").inner_text() == "a cell's page"


def test_a_key_hides_a_quantizer_in_all_panels(browser, page):
    with opened(browser, page) as shown:
        keys = shown.locator("h3", has_text="What a megabyte buys").locator("xpath=following-sibling::p[@class='keys'][1]")
        marks = keys.locator("xpath=following-sibling::div[1]").locator("[aria-label^='rtn2']:visible")
        before = marks.count()
        keys.locator(".key", has_text="rtn2").click()
        assert before >= 3 and marks.count() == 0
        keys.locator(".key", has_text="rtn2").click()
        assert marks.count() == before


def test_the_numbers_are_sorted_and_filtered(browser, page):
    with opened(browser, page) as shown:
        rows = ".results > tbody > tr:visible"
        shown.locator(".results th", has_text="MB").click()
        sizes = [float(text) for text in shown.locator(f"{rows} > td[data-label=MB]").all_inner_texts()]
        assert sizes == sorted(sizes, reverse=True) and len(sizes) == 3
        shown.get_by_label("quantizer", exact=True).select_option("rtn2")
        assert shown.locator(rows).count() == 1
