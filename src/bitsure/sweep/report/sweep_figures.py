"""A sweep's pictures: what a study would print, drawn from sweep.parquet's rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitsure.metrics.question_pairs import STRATA
from bitsure.report.drawing import new_figure, plain, save
from bitsure.sweep.report.panels import (
    MARKERS,
    MOST_PANELS,
    STYLES,
    interval,
    legend,
    line_with_intervals,
    parameter_ticks,
    quantizer_styles,
    size_colours,
    task_panels,
    values,
)
from bitsure.sweep.report.pareto import PARETO_AXES, pareto
from bitsure.sweep.report.picture import Picture
from bitsure.sweep.report.study_row import StudyRow, grouped, over_tasks, task_labels, tasks_of
from bitsure.sweep.report.sweep_statistics import STUDY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_WRITTEN = 600  # numbers in a heat map; beyond that only the colours can be read
OVER_SIZES = ("true_label_prob", "accuracy", "expected_calibration_error", "confidence")
OVER_BITS = ("true_label_prob", "accuracy")
NAMES = (*(f"scale_{metric}" for metric in OVER_SIZES), *(f"bits_{metric}" for metric in OVER_BITS))
NAMES += ("heat_map", *(axis.picture for axis in PARETO_AXES), "shift_by_certainty")  # every picture that there may be
SHIFT_KINDS = ("harm", "instability")
SHIFT = tuple(f"{kind}_stratum_{k}" for kind in SHIFT_KINDS for k in range(1, STRATA + 1))


def draw_pictures(models: list[StudyRow], sizes: list[StudyRow], folder: Path) -> list[Picture]:
    """Draw every picture that the rows allow.

    Args:
        models: A row for each model, task and metric.
        sizes: The same over training seeds.
        folder: Where the PNGs go.
    """
    pictures = [draw_scale(sizes, metric, folder) for metric in OVER_SIZES]
    pictures += [draw_bits(sizes, metric, folder) for metric in OVER_BITS]
    pictures += [draw_heat_map(models, folder), *(pareto(models, axis, folder) for axis in PARETO_AXES)]
    pictures.append(draw_shift(sizes, folder))
    return [picture for picture in pictures if picture is not None]


def draw_scale(rows: list[StudyRow], metric: str, folder: Path) -> Picture | None:
    """Draw a metric against the number of parameters, a line a quantizer; None unless one series has two sizes."""
    rows = [row for row in rows if row.metric == metric and row.parameters]
    by_series = grouped(rows, lambda row: row.series)
    if not any(len({row.parameters for row in members}) > 1 for members in by_series.values()):
        return None
    figure, panels = task_panels(rows)
    styles, series_names = quantizer_styles(rows), sorted(by_series)
    for axes, rows_of_task in panels:
        for (series, label), line in grouped(rows_of_task, lambda row: (row.series, row.label)).items():
            line.sort(key=lambda row: row.parameters or 0)
            x, y, (low, high) = values(line, "parameters"), values(line, "value"), interval(line)
            marker = MARKERS[series_names.index(series) % len(MARKERS)]
            axes.fill_between(x, low, high, color=styles[label]["color"], alpha=min(0.15, 0.5 / len(styles)), linewidth=0)
            axes.plot(x, y, marker=marker, markersize=4, linewidth=1.4, label=label, **styles[label])
        axes.set(xscale="log", xlabel="parameters")
        parameter_ticks(axes, {row.parameters for row in rows if row.parameters})
    legend(figure, (axes for axes, _ in panels))
    figure.supylabel(STUDY[metric], fontsize=10)
    caption = (
        "Every line is a quantizer, every marker a series of models. Bands are intervals: over questions for one model, over "
        "questions and training seeds for a size that was trained more than once."
    )
    path = save(figure, folder / f"scale_{metric}.png")
    return Picture(path, f"{STUDY[metric].capitalize()} against size", caption, rows)


def draw_bits(rows: list[StudyRow], metric: str, folder: Path) -> Picture | None:
    """Draw the difference against bits per weight, a line a size and method; None unless there are two widths."""
    rows = [row for row in rows if row.metric == metric and not row.is_full_precision]
    rows = [row for row in rows if row.bits_per_weight and row.delta is not None]
    by_method = grouped(rows, lambda row: (row.method, row.size_label))
    if not any(len({row.bits_per_weight for row in members}) > 1 for members in by_method.values()):
        return None
    figure, panels = task_panels(rows)
    colours = size_colours(rows)
    methods = list(dict.fromkeys(row.method_label for row in rows))
    styles: dict[str | None, dict[str, Any]]
    styles = {m: {"marker": MARKERS[k % len(MARKERS)], "linestyle": STYLES[k % len(STYLES)]} for k, m in enumerate(methods)}
    for axes, rows_of_task in panels:
        axes.axhline(0, color="0.6", linewidth=1, linestyle="--")
        for (size, method), line in grouped(rows_of_task, lambda row: (row.size_label, row.method_label)).items():
            line.sort(key=lambda row: row.bits_per_weight or 0)
            x, y, ends = values(line, "bits_per_weight"), values(line, "delta"), interval(line, "delta_")
            line_style = {"color": colours[size], "linewidth": 1.4, "markersize": 4, **styles[method]}
            line_with_intervals(axes, x, y, ends, line_style, {"elinewidth": 0.8, "capsize": 2})
        axes.set(xscale="log", xlabel="bits per weight")
        ticks = sorted({round(row.bits_per_weight) for row in rows if row.bits_per_weight})
        axes.set_xlim(0.9 * ticks[0], 1.1 * ticks[-1])
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    first = panels[0][0]
    for size, colour in colours.items():
        first.plot([], [], color=colour, linewidth=1.4, label=size)
    for method in methods if len(methods) > 1 else ():
        first.plot([], [], color="0.4", label=method, **styles[method])
    legend(figure, (axes for axes, _ in panels))
    figure.supylabel(f"change in {STUDY[metric]}", fontsize=10)
    path = save(figure, folder / f"bits_{metric}.png")
    caption = "Quantized − full precision on the same questions; scales and zero points count as bits. Bars are intervals."
    return Picture(path, f"What each bit buys: {STUDY[metric]}", caption, rows)


def draw_heat_map(rows: list[StudyRow], folder: Path) -> Picture | None:
    """Draw the change in true-label probability, model × task, a panel a quantizer.

    If there are more quantizers than models, the panels are models and the rows quantizers.
    """
    rows = [row for row in rows if row.metric == "true_label_prob" and row.delta is not None]
    if not rows:
        return None
    by_label, by_model, tasks = grouped(rows, lambda row: row.label), grouped(rows, lambda row: row.model), tasks_of(rows)
    models_are_panels = len(by_model) < len(by_label)
    panels, names = (by_model, list(by_label)) if models_are_panels else (by_label, list(by_model))
    is_written = len(rows) <= MOST_WRITTEN
    wide, high = (0.72, 0.3) if is_written else (0.34, 0.2)
    columns = min(len(panels), max(1, int(11 / (wide * len(tasks) + 0.4))))
    lines = -(-len(panels) // columns)
    width, height = columns * (wide * len(tasks) + 0.4) + 1.8, lines * (high * len(names) + 1.1) + 0.3
    figure, grid = new_figure(lines, columns, width=max(width, 4), height=height, squeeze=False, sharey=True)
    most = max(abs(row.delta or 0.0) for row in rows) or 1.0
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, (title, members) in zip(grid.flat, panels.items(), strict=False):
        axes.set_visible(True)
        places = [(names.index(row.label if models_are_panels else row.model), tasks.index(row.task)) for row in members]
        table = np.full((len(names), len(tasks)), np.nan)
        for row, place in zip(members, places, strict=True):
            table[place] = row.delta
        if is_written:
            _write_changes(axes, members, places, 0.6 * most)
        axes.imshow(table, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
        axes.set_xticks(range(len(tasks)), [plain(task) for task in task_labels(tasks)], rotation=30, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=8)
        axes.set_title(plain(title), fontsize=10)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    caption = (
        "Change in the mean true-label probability. Orange: lost; purple: gained. * : significant by the study's paired "
        "t-test, Holm over all models, quantizers and tasks of this sweep. A star for one model and none for another is not "
        "evidence that the two differ: see the contrasts between models."
    )
    path = save(figure, folder / "heat_map.png", colours=256)
    return Picture(path, "What changes where: model × task", caption, rows)


def _write_changes(axes: Axes, rows: list[StudyRow], places: list[tuple[int, int]], dark: float) -> None:
    """Write each change into its field of the heat map, in white where the colour is darker than that of `dark`."""
    for row, (i, j) in zip(rows, places, strict=True):
        delta = row.delta or 0.0
        ink = "white" if abs(delta) > dark else "black"
        axes.text(j, i, f"{delta:+.3f}{row.star}", ha="center", va="center", fontsize=7, color=ink)


def draw_shift(rows: list[StudyRow], folder: Path) -> Picture | None:
    """Draw harm and instability by the full model's own certainty, a panel a quantizer, a line a size."""
    rows = over_tasks([row for row in rows if row.metric in SHIFT])
    if not rows:
        return None
    by_label = grouped(rows, lambda row: row.label)
    shown = list(by_label)[:MOST_PANELS]
    colours = size_colours(rows)
    figure, grid = new_figure(2, len(shown), width=1.2 + 2.5 * len(shown), height=5.4, squeeze=False, sharex=True)
    for column, label in zip(grid.T, shown, strict=True):
        for axes, kind in zip(column, SHIFT_KINDS, strict=True):
            axes.axhline(0, color="0.6", linewidth=1, linestyle="--")
            for size, members in grouped(by_label[label], lambda row: row.size_label).items():
                by_metric = {row.metric: row for row in members}
                strata = [k for k in range(1, STRATA + 1) if f"{kind}_stratum_{k}" in by_metric]
                line = [by_metric[f"{kind}_stratum_{k}"] for k in strata]
                line_style = {"color": colours[size], "marker": "o", "markersize": 3.5, "linewidth": 1.3}
                x, bars = np.array(strata, dtype=float), {"elinewidth": 0.7, "capsize": 2}
                drawn = line_with_intervals(axes, x, values(line, "value"), interval(line), line_style, bars)
                drawn.set_label(size)
                axes.add_container(drawn)
        column[0].set_title(plain(label), fontsize=10)
        column[1].set(xticks=np.arange(1, STRATA + 1), xlabel="certainty: unsure → sure")
    grid[0, 0].set_ylabel("harm, nats")
    grid[1, 0].set_ylabel("instability, nats")
    legend(figure, grid.flat)
    caption = (
        "Questions of each task in five equal parts by the full model's own certainty. Harm is the mean, instability the "
        "standard deviation of the change in the log-odds of the right answer (below 0: a loss); log-odds are free of the "
        "softmax's slope. The panels' axes differ. Compare a slope with that of noise of the same size, which control=noise "
        "adds to a run."
    )
    if len(shown) < len(by_label):
        caption += f" The first {len(shown)} of {len(by_label)} quantizers are drawn; the CSV has all."
    path = save(figure, folder / "shift_by_certainty.png")
    return Picture(path, "Do unsure questions fare worse?", caption, rows)
