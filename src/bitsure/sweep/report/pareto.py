"""Metrics against what a model costs (size, bits, time, speed), with the Pareto front."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.report.drawing import new_figure, save
from bitsure.sweep.report.panels import (
    FILLS,
    MARKERS,
    interval,
    legend,
    plain_ticks,
    quantizer_styles,
    size_colours,
    values,
)
from bitsure.sweep.report.picture import Picture
from bitsure.sweep.report.study_row import StudyRow, grouped, over_tasks
from bitsure.sweep.report.sweep_statistics import STUDY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HIGHER_IS_BETTER = {"accuracy": True, "true_label_prob": True, "expected_calibration_error": False}  # metrics with a front


@dataclass(frozen=True)
class ParetoAxis:
    """A cost that metrics are drawn against."""

    column: str  # of `StudyRow`
    unit: float
    label: str
    picture: str
    title: str
    caption: str
    more_is_better: bool = False

    def cost(self, row: StudyRow) -> float:
        """Return the column of a row that has one, in its own unit."""
        return float(getattr(row, self.column))

    def place(self, row: StudyRow) -> float:
        """Return where a row lies on the axis."""
        return self.cost(row) / self.unit


ON_DISK = ParetoAxis(
    "size_bytes",
    1e6,
    "size on disk, MB",
    "pareto",
    "What a megabyte buys",
    "Size on disk is that of the model as it would be shipped: quantized weights at their bits per weight, scales counted, "
    "the rest as in full precision.",
)
CODED = ParetoAxis(
    "bits_per_weight_coded",
    1,
    "bits per weight after coding",
    "coded",
    "Is the cheapest model to load also the least sure?",
    "Bits per weight after coding are those of the better of zstd and an entropy coder, scales and zero points counted. A "
    "model that stays as confident but is less often right has a larger calibration error.",
)
QUANTIZING = ParetoAxis(
    "quantizing_seconds",
    1,
    "seconds of quantizing",
    "quantizing_time",
    "What a second of quantizing buys",
    "Seconds are the wall time of quantizing on the machine that did it, without loading and measuring.",
)
SPEED = ParetoAxis(
    "packed_tokens_per_second",
    1,
    "tokens per second of scoring",
    "scoring_speed",
    "What speed costs",
    "Tokens per second are those of scoring with packed kernels (scoring.dequantize=false), padding counted.",
    more_is_better=True,
)
PARETO_AXES = (ON_DISK, CODED, QUANTIZING, SPEED)


def pareto(rows: list[StudyRow], axis: ParetoAxis, folder: Path) -> Picture | None:
    """Draw accuracy, true-label probability and calibration error against a cost; None for fewer than two models."""
    rows = over_tasks([row for row in rows if row.metric in HIGHER_IS_BETTER and getattr(row, axis.column)])
    if len({(row.model, row.label) for row in rows}) < 2:
        return None
    fronts = {metric: pareto_front(members, axis) for metric, members in grouped(rows, lambda row: row.metric).items()}
    styles = quantizer_styles(rows)
    markers = {size: MARKERS[i % len(MARKERS)] for i, size in enumerate(size_colours(rows))}
    figure, grid = new_figure(1, len(HIGHER_IS_BETTER), width=11, height=4.4)
    for axes, metric in zip(grid, HIGHER_IS_BETTER, strict=True):
        best = sorted(fronts.get(metric, []), key=axis.cost)
        step = "pre" if axis.more_is_better else "post"
        axes.step(
            [axis.place(row) for row in best],
            values(best, "value"),
            where=step,
            color="0.7",
            linewidth=4,
            zorder=0,
            label="front",
        )
        points = [row for row in rows if row.metric == metric]
        x, inks = [axis.place(row) for row in points], [styles[row.label]["color"] for row in points]
        axes.vlines(x, *interval(points), colors=inks, linewidth=0.7)
        for row, place, ink in zip(points, x, inks, strict=True):
            fill = FILLS[styles[row.label]["linestyle"]]
            axes.plot(place, row.value, color=ink, markersize=6, marker=markers[row.size_label], fillstyle=fill)
        axes.set(xscale="log", xlabel=axis.label, title=STUDY[metric])
        plain_ticks(axes, x)
    _add_legend_entries(grid[0], {label: (style["color"], style["linestyle"]) for label, style in styles.items()}, markers)
    legend(figure, [grid[0]])
    cheaper = "faster" if axis.more_is_better else "cheaper"
    caption = (
        f"{axis.caption} The grey line is the front: nothing {cheaper} is as good. Intervals hold for single points; "
        "neighbours whose intervals overlap may swap places."
    )
    on_front = {id(row) for front in fronts.values() for row in front}
    path = save(figure, folder / f"{axis.picture}.png")
    return Picture(path, axis.title, caption, rows, [id(row) in on_front for row in rows])


def _add_legend_entries(axes: Axes, styles: dict[str, tuple[str, str]], markers: dict[str, str]) -> None:
    """Add an entry for each quantizer's colour and each size's marker."""
    for label, (colour, linestyle) in styles.items():
        axes.plot([], [], color=colour, marker="o", fillstyle=FILLS[linestyle], linestyle="none", label=label)
    for size, marker in markers.items():
        axes.plot([], [], color="0.4", marker=marker, linestyle="none", label=size)


def pareto_front(rows: list[StudyRow], axis: ParetoAxis) -> list[StudyRow]:
    """Return the Pareto front of one metric: the rows that no other row beats or equals at the same or a lower cost."""
    cost_sign = -1 if axis.more_is_better else 1
    value_sign = 1 if HIGHER_IS_BETTER[rows[0].metric] else -1
    front: list[StudyRow] = []
    for row in sorted(rows, key=lambda row: (cost_sign * axis.cost(row), -value_sign * row.value)):
        if not front or value_sign * row.value > value_sign * front[-1].value:
            front.append(row)
    return front
