"""Figures: nothing beyond their edges, intervals where they are, the same picture on a used sheet as on a new one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.stats import binomtest

from bitsure.comparison import compare
from bitsure.report import figures
from bitsure.report.drawing import ReusedFigures, draw_intervals, new_figure, save
from tests.builders.answers import paired_runs
from tests.builders.settings import METRIC


@pytest.fixture(scope="module")
def values():
    full, quant, _ = paired_runs()
    return compare(full, quant, METRIC)["t"]


class Many:
    """So many questions that their numbers need room."""

    confidence = np.random.default_rng(0).uniform(0.2, 1, 200_000)
    correct = np.ones(200_000)

    def __len__(self):
        return 200_000


MANY = {"full precision": (Many(), "b"), "quantized": (Many(), "r")}


def bins(n):
    return dataclasses.replace(METRIC, n_bins=n)


@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_no_figure_has_anything_beyond_its_edge(values, scale):
    """Their margins are fixed."""
    keys = ("value", "ci_low", "ci_high")
    scaled = {
        name: one.model_copy(update={key: scale * getattr(one, key) for key in keys if getattr(one, key) is not None})
        for name, one in values.items()
    }
    reused = ReusedFigures()
    drawn = [figures.reliability_figure(reused, "task", MANY, bins(2)), figures.risk_coverage_figure(reused, "task", MANY)]
    drawn += [figures.shift_figure(reused, "task", scaled), figures.deferral_figure(reused, "task", values)]
    for figure in drawn:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        box, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, box.extents


def test_a_figure_that_was_drawn_on_gives_the_same_picture(values, tmp_path):
    wide = {
        name: one.model_copy(update={key: 50 * value for key, value in one if isinstance(value, float)})
        for name, one in values.items()
    }
    one_model = {"quantized": MANY["quantized"]}
    drawings = {
        "reliability": lambda reused, first: figures.reliability_figure(reused, "t", MANY, bins(7 if first else 10)),
        "shift": lambda reused, first: figures.shift_figure(reused, "t", wide if first else values),
        "deferral": lambda reused, first: figures.deferral_figure(reused, "t", values),
        "risk": lambda reused, first: figures.risk_coverage_figure(reused, "t", MANY if first else one_model),
    }
    for name, draw in drawings.items():
        used = ReusedFigures()
        first = save(draw(used, True), tmp_path / f"{name}-first.png").read_bytes()
        again = save(draw(used, False), tmp_path / f"{name}-again.png").read_bytes()
        fresh = save(draw(ReusedFigures(), False), tmp_path / f"{name}-fresh.png").read_bytes()
        assert again == fresh, name
        assert name == "deferral" or first != fresh, name


def drawn_intervals(axes):
    """The lower and upper ends of the vertical lines on some axes."""
    return [tuple(line[:, 1]) for lines in axes.collections for line in lines.get_segments()]


def test_an_interval_that_excludes_its_value_is_drawn_where_it_is(values):
    first = values["harm_stratum_1"].model_copy(update={"value": 0.5, "ci_low": -0.2, "ci_high": 0.1})
    missing = values["harm_stratum_2"].model_copy(update={"value": None, "ci_low": None, "ci_high": None})
    changed = values | {"harm_stratum_1": first, "harm_stratum_2": missing}
    left = figures.shift_figure(ReusedFigures(), "t", changed).axes[0]
    ends = drawn_intervals(left)
    assert ends[0] == pytest.approx((-0.2, 0.1)) and len(ends) == figures.STRATA - 1


def test_a_reliability_diagram_has_intervals_of_the_confidence_level():
    full, _, _ = paired_runs(400)
    series = figures._series(full, None, False, "none")
    right = int(series["full precision"][0].correct.sum())
    for level in (0.5, 0.95):
        metric = dataclasses.replace(METRIC, n_bins=1, confidence_level=level)
        [ends] = drawn_intervals(figures.reliability_figure(ReusedFigures(), "t", series, metric).axes[0])
        wilson = binomtest(right, 400).proportion_ci(level, method="wilson")
        assert ends == pytest.approx((wilson.low, wilson.high), rel=1e-6)


def test_intervals_that_do_not_exist_are_left_out():
    _, axes = new_figure(1, 1)
    draw_intervals(axes, [1, 2], [np.nan, 0.0], [1.0, 1.0], "b")
    assert drawn_intervals(axes) == [(0.0, 1.0)]
