"""The page opens alone: no script, no network, hostile text escaped."""

from __future__ import annotations

import json
import re

import pytest

from bitsure.report import build, tables
from bitsure.terminal import Console
from tests.metrics.test_metrics import METRIC
from tests.test_compare import runs

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    full, quant, _ = runs(task=HOSTILE)
    out = tmp_path_factory.mktemp("report")
    return build(out, f"title {HOSTILE}", quant, full, METRIC, None, {"command": HOSTILE})


def test_the_page_needs_nothing_and_escapes_all_text(made):
    page = made.page.read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") >= 3
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert len(page) < 1_000_000


def test_pictures_lie_in_the_runs_own_directory(made):
    [picture] = made.figures.values()
    assert picture.parent == made.page.parent / "figures" and picture.read_bytes().startswith(b"\x89PNG")


def test_files_hold_the_numbers_that_were_returned(made):
    assert json.loads((made.page.parent / "metrics.json").read_text()) == made.metrics
    assert json.loads((made.page.parent / "comparison.json").read_text()) == made.comparison


def test_the_terminal_table_fits_80_columns_and_cuts_nothing(made):
    import io

    out = io.StringIO()
    table = tables.terminal_table({}, {"pocket_reading": made.comparison[HOSTILE]}, "title", 0.95, 0.01)
    Console(file=out, width=80).print(table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in out.getvalue()
    p = made.comparison[HOSTILE]["true_label_prob"]
    [line] = [line for line in lines if "true-label prob." in line]
    assert line.split()[-5:] == [f"{p['quantized']:.4f}", f"{p['value']:+.4f}", "*", *tables.interval(p, True).split()]


def test_numbers_that_do_not_exist_are_dashes():
    assert tables.number(None) == "–" and tables.number(0.12345, sign=True) == "+0.1235"
    assert tables.p_value(3e-9) == "< 1e-4" and tables.p_value(0.0314) == "0.031"
