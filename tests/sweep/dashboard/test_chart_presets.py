"""The page's charts in W&B: filled with a run's table as W&B does it, they draw what the page draws."""

from __future__ import annotations

import json
import re

import pytest
import wandb

from bitsure.report.chart_layers import FULL, points
from bitsure.report.charts import Chart, Series, table
from bitsure.sweep.dashboard.chart_presets import page_charts, register

RUNS = table({"name": ["first", "second"], "color": ["#111111", "#222222"]})


def filled(title: str, rows: list[dict]) -> str:
    """Return the SVG of a preset with the rows of two runs; W&B adds the run's name and colour."""
    builtin, spec = page_charts()[title]
    text = re.sub(r"\$\{(?:field|string):(\w+)\}", r"\1", json.dumps(spec))
    assert set(re.findall(r"\$\{field:(\w+)\}", json.dumps(spec))) <= set(builtin.columns)
    return Chart(json.loads(text) | {"width": 300, "data": {"values": [row | run for run in RUNS for row in rows]}}, "").svg


def test_a_forest_has_a_row_with_its_interval_for_each_task_and_run():
    columns = {"task": ["a", "b"], "change": [-0.1, 0], "ci_low": [-0.2, None], "ci_high": [0, None], "margin": [-0.01] * 2}
    svg = filled("bitsure forest", table(columns | {"outcome": ["undecided"] * 2, "numbers": ["x"] * 2, "hover": ["h"] * 2}))
    assert re.findall(r">([ab], \w+)</text>", svg) == ["a, first", "b, first", "a, second", "b, second"]
    assert len(re.findall(r'<line [^>]*stroke="#888888" stroke-width="2"', svg)) == 2  # no interval, no line


def test_lines_have_their_intervals_and_the_colour_of_the_run():
    line = Series("quantized", points({"x": [0, 1], "y": [0, 1], "low": [0, None], "high": [1, None]}, ["h", "i"]), FULL)
    svg = filled("bitsure lines", line.labelled_rows)
    for colour in ("#111111", "#222222"):
        assert (
            svg.count(f'stroke="{colour}"') >= 2
            and svg.count(f'<line aria-label="quantized" transform="translate(0,300)" x2="0" y2="-300" stroke="{colour}"') == 1
        )


class Refusing:
    """An `Api` whose server refuses presets."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def create_custom_chart(self, **given):
        raise wandb.Error(self.reason)


@pytest.mark.parametrize(("reason", "n"), [("chart already exists", 2), ("unknown field createCustomChart", 0)])
def test_presets_that_are_there_are_used_and_those_that_are_refused_are_not(reason, n):
    ids = register(Refusing(reason), "me")
    assert len(ids) == n and all(place.startswith("me/bitsure-") for place in ids.values())
