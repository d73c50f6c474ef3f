"""Charts: one specification makes the PNG and the page's picture, in any colour of the page and with any text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from bitsure.report.chart_layers import FULL, QUANTIZED, lines, number_axis, points
from bitsure.report.charts import Chart, Series, file_name, save_png, table
from tests.builders.pictures import forget_pictures

HOSTILE = '<script>alert("x")</script>\u202egnp'
AXES = number_axis("x"), number_axis("y")


@pytest.fixture(scope="module")
def chart():
    rows = [points({"x": [0, 1], "y": [k, 1], "low": [0, None], "high": [1, None]}, [f"{k}: {HOSTILE}", ""]) for k in (0, 1)]
    series = [Series("full", rows[0], FULL, "square"), Series("quantized", rows[1], QUANTIZED)]
    spec = {"title": table({"text": [HOSTILE]})[0], "layer": lines(series, *AXES)}
    return Chart(spec, f"a finding {HOSTILE}")


def test_text_from_outside_is_escaped(chart):
    assert "<script" not in chart.html and "\u202e" not in chart.svg and "<script" not in chart.svg
    assert chart.html.startswith('<svg role="img" aria-label="a finding &lt;script&gt;')
    assert 'aria-label="0: &lt;script&gt;' in chart.svg  # what hovering shows


def test_a_picture_takes_the_colour_of_the_page(chart):
    assert "currentColor" in chart.svg and 'fill="white"' not in chart.svg
    assert set(re.findall(r'(?:fill|stroke)="([^"]*)"', chart.svg)) <= {"none", "currentColor", "transparent", FULL, QUANTIZED}


def test_text_that_looks_like_an_attribute_is_kept():
    spec = {
        "title": 'x opacity="1" d="0.123456"',
        "layer": lines([Series("s", points({"x": [0], "y": [0]}, ["0.123456"]), FULL)], *AXES),
    }
    svg = Chart(spec, "").svg
    assert 'x opacity="1" d="0.123456"' in svg and 'aria-label="0.123456"' in svg
    assert 'opacity="1"' not in svg.replace('x opacity="1"', "") and not re.search(r' transform="[^"]*\.\d{3}', svg)


def test_lines_can_be_hidden_by_their_names(chart):
    assert chart.svg.count('aria-label="full"') == chart.svg.count('aria-label="quantized"') == 2  # interval and line


def test_intervals_that_do_not_exist_are_left_out(chart):
    assert chart.svg.count('<line aria-label="full"') == 1


def test_a_png_is_on_white_and_small(chart, tmp_path):
    drawn = save_png(chart, tmp_path / "a.png")
    picture = Image.open(drawn.path)
    assert picture.convert("RGB").getpixel((1, picture.height - 2)) == (255, 255, 255)
    assert drawn.path.stat().st_size < 30_000 and picture.width > 400


def test_the_same_chart_gives_the_same_bytes(chart, tmp_path):
    again = Chart(chart.spec, chart.finding)
    first = save_png(chart, tmp_path / "a.png").path.read_bytes()
    forget_pictures()
    second = save_png(again, tmp_path / "a.png").path.read_bytes()
    assert first == second and again.svg == chart.svg


def test_rows_hold_plain_values():
    rows = table({"a": np.array([1 / 3, np.nan]), "b": [np.int64(7), None], "c": ["\x1b[2J", ""]})
    assert rows == [{"a": 0.333333, "b": 7, "c": "�[2J"}, {"a": None, "b": None, "c": ""}]


def test_file_names_are_safe_and_unique():
    names = ["a/b", "a:b", "arc_easy", "long" * 80]
    files = [file_name(name) for name in names]
    assert files[2] == "arc_easy" and len(set(files)) == 4 and all("/" not in file and len(file) < 100 for file in files)
