"""Panels, colours, ticks and intervals that a sweep's pictures have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bitsure.report.drawing import new_figure, plain
from bitsure.sweep.report.run_columns import parameter_count
from bitsure.sweep.report.study_row import StudyRow, grouped, task_labels, tasks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

Array: TypeAlias = npt.NDArray[np.float64]
Colour: TypeAlias = tuple[float, float, float, float]

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")  # Okabe & Ito (2008), no yellow
STYLES = ("-", "--", ":", "-.")
FILLS = dict(zip(STYLES, ("full", "none", "left", "bottom"), strict=True))  # of points, where lines have these styles
MARKERS = "osD^vP*X<>"
LETTER, LINE = 0.07, 0.17  # inches, of a legend
MOST_PANELS = 12
MOST_TICKS = 4


def quantizer_styles(rows: list[StudyRow]) -> dict[str, dict[str, Any]]:
    """Return a colour and a line style for each label of a quantizer."""
    labels = list(dict.fromkeys(row.label for row in sorted(rows, key=lambda row: row.quantizer_order)))
    styles: dict[str, dict[str, Any]] = {}
    k = 0
    for label in labels:
        if label.startswith("full precision"):
            styles[label] = {"color": "black", "linestyle": STYLES[len(styles) % len(STYLES)]}
            continue
        styles[label] = {"color": COLOURS[k % len(COLOURS)], "linestyle": STYLES[k // len(COLOURS) % len(STYLES)]}
        k += 1
    return styles


def size_colours(rows: list[StudyRow]) -> dict[str, Colour]:
    """Return a colour for each label of a size, dark for small and bright for large."""
    from matplotlib import colormaps

    sizes = list(grouped(rows, lambda row: row.size_label))
    return {size: colormaps["viridis"](0.85 * i / max(len(sizes) - 1, 1)) for i, size in enumerate(sizes)}


def task_panels(rows: list[StudyRow]) -> tuple[Figure, list[tuple[Axes, list[StudyRow]]]]:
    """Return a figure with a panel for each of the first tasks, and each panel's axes and rows."""
    tasks = tasks_of(rows)[:MOST_PANELS]
    columns = min(len(tasks), 5 if len(tasks) in (5, 9, 10) else 4)
    lines = -(-len(tasks) // columns)
    figure, grid = new_figure(lines, columns, width=0.6 + 2.5 * max(columns, 2), height=0.7 + 2.5 * lines, squeeze=False)
    for axes in grid.flat[len(tasks) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, task_labels(tasks), strict=False):
        axes.set_title(plain(name), fontsize=10)
        axes.tick_params(labelsize=8)
    return figure, [(axes, [row for row in rows if row.task == task]) for axes, task in zip(grid.flat, tasks, strict=False)]


def legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """Draw one legend for all panels, below them, in as many columns as fit; the figure grows by its lines."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(text), handle)
    width, height = figure.get_size_inches()
    columns = max(1, int(width / (LETTER * (max(map(len, handles)) + 7))))
    lines = -(-len(handles) // columns)
    figure.set_size_inches(width, height + LINE * max(0, lines - 3))
    texts = [plain(text) for text in handles]
    figure.legend(list(handles.values()), texts, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def parameter_ticks(axes: Axes, values: set[int]) -> None:
    """Set a tick at each size, or at few of them where they would overlap."""
    some = sorted(values)[:: -(-len(values) // MOST_TICKS)]
    axes.set_xticks(some, [parameter_count(n) for n in some])
    axes.minorticks_off()


def plain_ticks(axes: Axes, x: list[float]) -> None:
    """Set ticks at 1, 2, 5, 10 … on a log axis that spans too little for powers of ten.

    If fewer than two of these lie among the values, ticks divide their range evenly.
    """
    from matplotlib.ticker import MaxNLocator

    low, high = min(x), max(x)
    ticks = [k * 10.0**e for e in range(-4, 8) for k in (1, 2, 5) if low * 0.8 <= k * 10.0**e <= high * 1.25]
    if len(ticks) > 7:
        return
    if sum(low <= tick <= high for tick in ticks) < 2:
        ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high] or [low]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def values(rows: list[StudyRow], column: str) -> Array:
    """Return a column as an array, shape (rows,); NaN where there is no number."""
    return np.array([getattr(row, column) for row in rows], dtype=float)


def interval(rows: list[StudyRow], prefix: str = "") -> tuple[Array, Array]:
    """Return the lower and upper ends of the intervals of `value`, or with the prefix `delta_` of `delta`."""
    return values(rows, f"{prefix}ci_low"), values(rows, f"{prefix}ci_high")


def line_with_intervals(
    axes: Axes, x: Array, y: Array, ends: tuple[Array, Array], line: dict[str, Any], bars: dict[str, Any]
) -> ErrorbarContainer:
    """Draw a line through points, and each point's interval between its real ends.

    An interval need not contain its value: that of a biased estimate may exclude it.

    Args:
        axes: The panel.
        x: Places of the points, shape (n,).
        y: Values, shape (n,).
        ends: Lower and upper ends of the intervals, each of shape (n,); NaN for no interval.
        line: Settings of the line and its markers.
        bars: Settings of the intervals' bars, as `Axes.errorbar` takes them.

    Returns:
        Line, caps and bars together, as a legend shows them.
    """
    from matplotlib.container import ErrorbarContainer

    low, high = ends
    drawn = axes.errorbar(x, (low + high) / 2, (high - low) / 2, fmt="none", ecolor=line["color"], **bars)
    [data_line] = axes.plot(x, y, zorder=2.1, **line)
    _, caps, bar_lines = drawn.lines
    return ErrorbarContainer((data_line, caps, bar_lines), has_yerr=True)
