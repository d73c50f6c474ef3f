"""The page in a real browser: on a wide screen and a phone, with and without its script."""

from __future__ import annotations

import pytest

from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from tests.builders.answers import paired_runs
from tests.builders.browser import SCREENS, cut_off, needs_browser, opened
from tests.builders.result_files import provenance, quantization
from tests.builders.settings import MARGINS, METRIC

pytestmark = needs_browser
HOSTILE = '</script><script>document.title = "owned"</script><img src=x onerror="document.title = 1">'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    both = [paired_runs(60, task=task, seed=k) for k, task in enumerate(("a task", HOSTILE))]
    full, quant = ([row for one in both for row in one[side]] for side in (0, 1))
    prompts = {(row.task, row.doc_id): f"what is number {row.doc_id}? {HOSTILE}" for row in quant}
    about = About(f"model {HOSTILE}", quantization(), provenance(git_commit=HOSTILE), prompts)
    return build(tmp_path_factory.mktemp("page"), quant, full, METRIC, MARGINS, about).page


@SCREENS
def test_nothing_is_cut_off_loaded_or_run(browser, page, width, colours):
    with opened(browser, page, width, color_scheme=colours) as shown:
        shown.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
        assert cut_off(shown) == [] and shown.troubles == []
        assert shown.title().startswith("model ") and shown.evaluate("document.documentElement.scrollWidth") <= width
        ink, paper = (shown.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
        text = shown.evaluate("getComputedStyle(document.querySelector('.forest .task_names_marks text')).fill")
        assert text == ink != paper


def test_the_page_is_whole_without_its_script(browser, page):
    with opened(browser, page, java_script_enabled=False) as shown:
        assert shown.locator("figure svg:visible").count() == 5 + 2 * 5
        assert shown.get_by_role("img").count() == 5 + 2 * 5
        assert shown.locator("#questions > table > tbody > tr:visible").count() == 40


def test_a_phone_shows_a_list_of_sections_that_the_contents_open(browser, page):
    with opened(browser, page, 390) as shown:
        assert shown.locator(".forest svg:visible").count() == 5 and not shown.locator("#questions td:visible").count()
        shown.locator("nav a", has_text="Questions").click()
        shown.locator("#questions td:visible").first.wait_for()
    with opened(browser, page, 1400) as shown:
        assert shown.locator("#questions td:visible").count() > 0 and not shown.locator("#origin dd:visible").count()


def test_metrics_are_called_by_words_with_their_names_on_hovering(browser, page):
    with opened(browser, page) as shown:
        name = shown.locator("#numbers td", has_text="true-label probability").first
        assert name.inner_text() == "true-label probability"
        assert name.locator("span").get_attribute("title") == "true_label_prob"


def test_hovering_shows_the_number(browser, page):
    with opened(browser, page) as shown:
        mark = shown.locator(".forest svg [aria-label^='a task']").first
        mark.scroll_into_view_if_needed()
        mark.hover()
        assert shown.locator("#hover").inner_text() == mark.get_attribute("aria-label")
        shown.mouse.move(0, 0)
        assert not shown.locator("#hover").is_visible()


def test_a_click_in_the_legend_hides_a_line(browser, page):
    with opened(browser, page) as shown:
        figure = shown.locator(".reliability svg").first
        marks, others = (figure.locator(f"[aria-label^='{name}']:visible") for name in ("quantized", "full precision"))
        before = marks.count()
        figure.locator(".key", has_text="quantized").click()
        assert before > 10 and marks.count() == 0 and others.count() > 10
        figure.locator(".key", has_text="quantized").click()
        assert marks.count() == before


def test_questions_are_sorted_and_filtered(browser, page):
    with opened(browser, page) as shown:
        rows = "#questions > table.filterable > tbody > tr:visible"
        shown.locator("th", has_text="change").click()
        changes = [float(text) for text in shown.locator(f"{rows} > td[data-label=change]").all_inner_texts()]
        assert changes == sorted(changes, reverse=True)
        shown.get_by_label("task", exact=True).select_option("a task")
        assert shown.locator(rows).count() == 20 and shown.locator(".controls span").inner_text() == "20 of 40"
        number = shown.locator(f"{rows} > td[data-label=question]").first.inner_text()
        shown.get_by_label("filter by text").fill(f"what is number {number}?")
        assert shown.locator(rows).count() == 1
