"""Panels, colours, ticks and bars that a sweep's pictures have in common."""

from __future__ import annotations

import numpy as np

from bitsure.report.drawing import new_figure, plain
from bitsure.sweep.report.labels import groups, label, parameters, short, size, tasks_of
from bitsure.sweep.report.sweep_table import FULL

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")  # Okabe & Ito (2008), no yellow
STYLES = ("-", "--", ":", "-.")
FILLS = dict(zip(STYLES, ("full", "none", "left", "bottom"), strict=True))  # of points, where lines have these styles
MARKERS = "osD^vP*X<>"
LETTER, LINE = 0.07, 0.17  # inches, of a legend
MOST_PANELS = 12
MOST_TICKS = 4


def styles_of(rows: list[dict]) -> dict[str, dict]:
    """A colour and a style for each label."""
    order = sorted(rows, key=lambda row: (row["quantizer"] != FULL, row["method"], -(row["bits_per_weight"] or 0), label(row)))
    labels = list(dict.fromkeys(label(row) for row in order))
    styles, k = {}, 0
    for one in labels:
        if one.startswith("full precision"):
            styles[one] = {"color": "black", "linestyle": STYLES[len(styles) % len(STYLES)]}
            continue
        styles[one] = {"color": COLOURS[k % len(COLOURS)], "linestyle": STYLES[k // len(COLOURS) % len(STYLES)]}
        k += 1
    return styles


def colours_of(rows: list[dict]) -> dict[str, tuple]:
    """A colour for each size, dark for small and bright for large."""
    from matplotlib import colormaps

    sizes = list(groups(rows, size))
    return {one: colormaps["viridis"](0.85 * i / max(len(sizes) - 1, 1)) for i, (one,) in enumerate(sizes)}


def panels_of(rows: list[dict]):
    """A figure and its (axes, rows) for the first tasks."""
    tasks = tasks_of(rows)[:MOST_PANELS]
    columns = min(len(tasks), 5 if len(tasks) in (5, 9, 10) else 4)
    lines = -(-len(tasks) // columns)
    figure, grid = new_figure(lines, columns, width=0.6 + 2.5 * max(columns, 2), height=0.7 + 2.5 * lines, squeeze=False)
    for axes in grid.flat[len(tasks) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, short(tasks), strict=False):
        axes.set_title(plain(name), fontsize=10)
        axes.tick_params(labelsize=8)
    return figure, [(axes, [row for row in rows if row["task"] == task]) for axes, task in zip(grid.flat, tasks, strict=False)]


def legend(figure, panels) -> None:
    """One for all panels, below them, in as many columns as fit; the figure grows by its lines."""
    seen: dict[str, object] = {}
    for axes, _ in panels:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            seen.setdefault(text, handle)
    width, height = figure.get_size_inches()
    columns = max(1, int(width / (LETTER * (max(map(len, seen)) + 7))))
    lines = -(-len(seen) // columns)
    figure.set_size_inches(width, height + LINE * max(0, lines - 3))
    texts = [plain(text) for text in seen]
    figure.legend(seen.values(), texts, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def parameter_ticks(axes, values: set[int]) -> None:
    """A tick at each size, or at few of them where they would run into each other."""
    some = sorted(values)[:: -(-len(values) // MOST_TICKS)]
    axes.set_xticks(some, [parameters(n) for n in some])
    axes.minorticks_off()


def plain_ticks(axes, x: list[float]) -> None:
    """1, 2, 5, 10 … on a log axis that spans too little for powers of ten; what divides it where there are not two of these."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(x), max(x)
    ticks = [k * 10.0**e for e in range(-4, 8) for k in (1, 2, 5) if low * 0.8 <= k * 10.0**e <= high * 1.25]
    if len(ticks) > 7:
        return
    if sum(low <= tick <= high for tick in ticks) < 2:
        ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high] or [low]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def column(rows: list[dict], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=float)


def interval(rows: list[dict], prefix: str = "") -> tuple[np.ndarray, np.ndarray]:
    return column(rows, f"{prefix}ci_low"), column(rows, f"{prefix}ci_high")


def bars(y: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What matplotlib draws as error bars; an interval need not hold its value (a biased estimate's)."""
    return np.nan_to_num(np.maximum([y - low, high - y], 0))
