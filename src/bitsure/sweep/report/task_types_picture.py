"""What each bit costs by type of task, of weights, activations, and keys and values, and where the knee is (Li et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitsure.report.chart_layers import number_axis, reference_line
from bitsure.report.charts import Chart, Spec
from bitsure.report.rounded import rounded_parts
from bitsure.results.verdict import NOT_JUDGED
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.line_panels import (
    MOST_PANELS,
    LinePoint,
    findings,
    line_layers,
    panel,
    quantizer_keys,
    series_of,
    with_interval,
)
from bitsure.sweep.report.picture import LegendKey, Picture
from bitsure.sweep.report.study_row import StudyRow, grouped
from bitsure.sweep.report.sweep_table import columns_of_cells, tasks_of_mean

NAME = "task_types"
GUESSES = "full precision is not above guessing"


@dataclass(frozen=True)
class RoundedBits:
    """What a quantizer rounds, such as `weights and activations`, and to how many bits on average over these."""

    what: str
    bits: float


def task_types_picture(cells: Sequence[CellResult], rows: Sequence[StudyRow], margin: float) -> Picture | None:
    """Return the change of accuracy against bits, a line a type of task, a panel a model and what is rounded.

    A type of task is an option of conf/task, or the tasks that were asked where all cells have the same option. There is none
    for fewer than two types, or without two widths of the same.

    Args:
        cells: The sweep's cells.
        rows: A row for each model, quantizer, task and metric.
        margin: The largest loss of accuracy to ship.
    """
    types, rounded = _types(cells), _rounded(cells)
    guessed = {(cell.model_name, tasks_of_mean(cell)) for cell in cells if cell.verdict and cell.verdict.verdict == NOT_JUDGED}
    rows = [row for row in rows if row.metric == "accuracy" and row.delta is not None and row.quantizer_label in rounded]
    rows = [row for row in rows if _asked(row) in types]
    by_panel = grouped(rows, lambda row: (row.model, rounded[row.quantizer_label].what))
    by_panel = {name: members for name, members in by_panel.items() if len({row.quantizer_label for row in members}) > 1}
    if len({types[_asked(row)] for row in rows}) < 2 or not by_panel:
        return None
    shown = dict(list(by_panel.items())[:MOST_PANELS])
    keys = quantizer_keys(rows, lambda row: types[_asked(row)])
    panels = []
    for (model, what), members in shown.items():
        by_type = grouped(members, lambda row: types[_asked(row)])
        knees = {
            name: GUESSES if (model, _asked(line[0])) in guessed else knee(line, rounded, margin)
            for name, line in by_type.items()
        }
        points = [_point(name, row, rounded[row.quantizer_label].bits) for name, line in by_type.items() for row in line]
        drawn = panel(model, _layers(points, keys, margin), subtitle=what)
        finding = f"{model}, {what}: {findings(knees, most=len(knees))}"
        panels.append(Chart(drawn, finding, series_of(points, keys), "bits"))
    caption = (
        "Quantized − full precision on the same questions, the mean over a type's tasks; dashed is the margin of "
        f"{margin:g}. Bits are the mean over what is rounded, so that W4A8 stands at 6. Accuracy holds down to the knee: from "
        "the widest on, every interval lies within the margin. With few questions none may."
    )
    if len(shown) < len(by_panel):
        caption += f" The first {len(shown)} of {len(by_panel)} panels are drawn; the CSV has all."
    finding = " ".join(chart.finding for chart in panels)
    return Picture(NAME, "What each bit costs, by type of task", caption, finding, panels, keys, rows, columns=3)


def _point(task_type: str, row: StudyRow, bits: float) -> LinePoint:
    change = with_interval(row.delta, row.delta_ci_low, row.delta_ci_high, sign=True)
    hover = f"{task_type}: {row.quantizer_label}, {change}"
    return LinePoint(task_type, "", bits, row.delta, row.delta_ci_low, row.delta_ci_high, hover)


def _layers(points: Sequence[LinePoint], keys: Sequence[LegendKey], margin: float) -> list[Spec]:
    """Return the layers of one panel: the margin, then the lines, from few bits to many."""
    bits = sorted({point.x for point in points})
    ends = (bits[0] - 0.5, bits[-1] + 0.5)
    x = number_axis("bits", {"domain": list(ends)}, values=bits, format="~g", grid=False)
    y = number_axis("change in accuracy", {"zero": True})
    at_margin = reference_line([(end, -margin) for end in ends], x, y)
    return [at_margin, *line_layers(sorted(points, key=lambda point: point.x), keys, x, y)]


def knee(rows: Sequence[StudyRow], rounded: Mapping[str, RoundedBits], margin: float) -> str:
    """Return in words the fewest bits at which accuracy is surely within the margin, and the most at which it is surely not.

    Args:
        rows: One model's accuracy on one type of task, by quantizers that round the same.
        rounded: The quantizer's label → what it rounds.
        margin: The largest loss of accuracy to ship.
    """
    widest_first = sorted(rows, key=lambda row: -rounded[row.quantizer_label].bits)
    within = []
    for row in widest_first:
        if row.delta_ci_low is None or row.delta_ci_low <= -margin:
            break
        within.append(row)
    lost = [row for row in widest_first if row.delta_ci_high is not None and row.delta_ci_high < -margin]
    holds = f"within the margin down to {within[-1].quantizer_label}" if within else "surely within the margin at no width"
    return f"{holds}, surely beyond at {lost[0].quantizer_label}" if lost else holds


def _asked(row: StudyRow) -> str:
    """Return the tasks that a row is the mean over, or its single one."""
    return row.mean_over or row.task


def _types(cells: Sequence[CellResult]) -> dict[str, str]:
    """Return tasks, as `_asked` has them → their type."""
    options = {tasks_of_mean(cell): cell.config.get("task", {}).get("name", "") for cell in cells}
    return options if len(set(options.values())) > 1 else {tasks: tasks for tasks in options}


def _rounded(cells: Sequence[CellResult]) -> dict[str, RoundedBits]:
    """Return the label of each quantizer → what it rounds; weights that are kept do not count."""
    rounded = {}
    for cell, columns in zip(cells, columns_of_cells(list(cells)), strict=True):
        parts = rounded_parts(cell.quantization, cell.model) if cell.quantization else []
        parts = [part for part in parts if part.error is not None and part.bits is not None]
        if parts:
            what = " and ".join(part.name for part in parts)
            bits = [round(part.bits) for part in parts if part.bits is not None]
            rounded[columns.quantizer_label] = RoundedBits(what, sum(bits) / len(bits))
    return rounded
