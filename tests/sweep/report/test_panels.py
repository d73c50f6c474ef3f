from __future__ import annotations

import numpy as np
import pytest

from bitsure.report.drawing import new_figure
from bitsure.sweep.report.panels import legend, line_with_intervals, plain_ticks


def test_a_long_legend_stays_inside_the_picture_and_leaves_the_panels_their_height():
    figure, grid = new_figure(1, 2, width=8, height=4)
    for number in range(30):
        grid[0].plot([], [], label=f"transform+quantizer{number}-asym-a8, calib.name=pocket")
    legend(figure, grid)
    figure.draw_without_rendering()
    drawn, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert drawn.x0 >= 0 and drawn.x1 <= whole.x1 and drawn.y0 >= 0
    assert grid[0].get_window_extent().height > 0.6 * 4 * figure.dpi


@pytest.mark.parametrize("x", [[2.1, 2.2, 2.4], [3.1, 3.9], [4.0, 4.0], [0.9, 30.0], [110.0, 190.0]])
def test_an_axis_of_sizes_has_ticks_among_them(x):
    _, axes = new_figure(1, 1)
    axes.plot(x, x)
    axes.set_xscale("log")
    plain_ticks(axes, x)
    among = [tick for tick in axes.get_xticks() if min(x) <= tick <= max(x)]
    assert len(among) >= min(2, len(set(x))) and len(axes.get_xticks()) <= 8


def test_an_interval_is_drawn_between_its_ends_also_where_it_excludes_its_value():
    _, axes = new_figure(1, 1)
    x, y = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.1, 0.3])
    low, high = np.array([0.4, 0.2, np.nan]), np.array([0.7, 0.3, np.nan])
    line_with_intervals(axes, x, y, (low, high), {"color": "black"}, {"capsize": 2})
    [bars] = axes.collections
    drawn = [segment[:, 1].tolist() for segment in bars.get_segments() if len(segment)]
    assert drawn == [pytest.approx([0.4, 0.7]), pytest.approx([0.2, 0.3])]
