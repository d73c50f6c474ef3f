"""What each bit costs by type of task, of weights, activations, and keys and values, and where the knee is (Li et al. 2024)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bitsure.comparison.losses import is_above_guessing
from bitsure.config.derived_tasks import is_repetition
from bitsure.metrics.metric_names import MACRO
from bitsure.report.chart_layers import COLOURS, DASHES, number_axis, reference_line
from bitsure.report.charts import Chart, Spec
from bitsure.report.rounded import rounded_parts
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.line_panels import (
    MOST_PANELS,
    LinePoint,
    findings,
    line_layers,
    panel,
    series_of,
    with_interval,
)
from bitsure.sweep.report.picture import LegendKey, Picture
from bitsure.sweep.report.study_row import StudyRow, grouped
from bitsure.sweep.report.sweep_statistics import mean_over_tasks
from bitsure.sweep.report.sweep_table import columns_of_cells

NAME = "task_types"
GUESSES = "full precision is not above guessing"


@dataclass(frozen=True)
class RoundedBits:
    """What a quantizer rounds, such as `weights and activations`, and to how many bits on average over these."""

    what: str
    bits: float


@dataclass(frozen=True)
class TypeLine:
    """A model's accuracy on a type of task, by quantizers that round the same.

    Attributes:
        task_type: The type.
        rows: A row for each quantizer: the mean over the tasks that full precision does not guess; over all if it guesses all.
        left_out: The tasks that it guesses, where there are others.
        guesses: Whether it guesses all.
    """

    task_type: str
    rows: list[StudyRow]
    left_out: list[str]
    guesses: bool


def task_types_picture(cells: Sequence[CellResult], rows: Sequence[StudyRow], margin: float) -> Picture | None:
    """Return the change of accuracy against bits, a line a type of task, a panel a model and what is rounded.

    A type of task is an option of conf/task, or the tasks that were asked where all cells have the same option. There is none
    for fewer than two types, or without two widths of the same.

    Args:
        cells: The sweep's cells.
        rows: A row for each model, quantizer, task and metric.
        margin: The largest loss of accuracy to ship.
    """
    rounded = _rounded(cells)
    rows = [row for row in rows if row.metric == "accuracy" and row.delta is not None and row.quantizer_label in rounded]
    lines = _lines(cells, rows, rounded)
    types = list(dict.fromkeys(line.task_type for of_panel in lines.values() for line in of_panel))
    if len(types) < 2:
        return None
    keys = [LegendKey(name, COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]) for i, name in enumerate(types)]
    shown = dict(list(lines.items())[:MOST_PANELS])
    panels = [_chart(model, what, of_panel, rounded, keys, margin) for (model, what), of_panel in shown.items()]
    caption = (
        "Quantized − full precision on the same questions, the mean over a type's tasks; dashed is the margin of "
        f"{margin:g}. Bits are the mean over what is rounded, so that W4A8 stands at 6. Accuracy holds down to the knee: from "
        "the widest on, every interval lies within the margin. With few questions none may."
    )
    left_out = {(model, task): None for (model, _), of_panel in shown.items() for line in of_panel for task in line.left_out}
    if left_out:
        names = ", ".join(f"{task} of {model}" for model, task in left_out)
        caption += f" Without tasks on which full precision is not above guessing: {names}."
    if len(shown) < len(lines):
        caption += f" The first {len(shown)} of {len(lines)} panels are drawn; the CSV has all."
    finding = " ".join(chart.finding for chart in panels)
    drawn = {id(row): row for of_panel in lines.values() for line in of_panel for row in line.rows}  # types may share a task
    title = "What each bit costs, by type of task"
    return Picture(NAME, title, caption, finding, panels, keys, list(drawn.values()), columns=3)


def _chart(
    model: str,
    what: str,
    lines: Sequence[TypeLine],
    rounded: Mapping[str, RoundedBits],
    keys: Sequence[LegendKey],
    margin: float,
) -> Chart:
    knees = {line.task_type: GUESSES if line.guesses else knee(line.rows, rounded, margin) for line in lines}
    points = [_point(line.task_type, row, rounded[row.quantizer_label].bits) for line in lines for row in line.rows]
    drawn = panel(model, _layers(points, keys, margin), subtitle=what)
    return Chart(drawn, f"{model}, {what}: {findings(knees, most=len(knees))}", series_of(points, keys), "bits")


def _lines(
    cells: Sequence[CellResult], rows: Sequence[StudyRow], rounded: Mapping[str, RoundedBits]
) -> dict[tuple[str, str], list[TypeLine]]:
    """Return (model, what is rounded) → its lines, where there are two widths."""
    types, lines = _types(cells), {}
    guessed = {
        (cell.model_name, columns.conditions, task)
        for cell, columns in zip(cells, columns_of_cells(list(cells)), strict=True)
        for task, values in cell.comparison.items()
        if task != MACRO and not is_above_guessing(values)
    }
    for (model, what), members in grouped(list(rows), lambda row: (row.model, rounded[row.quantizer_label].what)).items():
        if len({row.quantizer_label for row in members}) > 1:
            of_types = {name: [row for row in members if (row.conditions, row.task) in asked] for name, asked in types.items()}
            of_panel = [_line(name, of_type, guessed) for name, of_type in of_types.items()]
            lines[model, what] = [line for line in of_panel if line.rows]
    return {name: of_panel for name, of_panel in lines.items() if of_panel}


def _line(task_type: str, rows: list[StudyRow], guessed: Collection[tuple[str, str, str]]) -> TypeLine:
    """Return a line of one model's rows of a type's tasks; a quantizer without all of these tasks has no part in it."""
    kept = [row for row in rows if (row.model, row.conditions, row.task) not in guessed]
    left_out = [row.task for row in rows if (row.model, row.conditions, row.task) in guessed]
    used = kept or rows
    asked = grouped(used, lambda row: row.conditions)
    n_asked = {conditions: len({row.task for row in members}) for conditions, members in asked.items()}
    runs = grouped(used, lambda row: (row.label, row.conditions, row.calib_seed, row.training_seed))
    means = [mean_over_tasks(members) for (_, conditions, *_), members in runs.items() if len(members) == n_asked[conditions]]
    return TypeLine(task_type, means, list(dict.fromkeys(left_out)) if kept else [], guesses=not kept)


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


def _types(cells: Sequence[CellResult]) -> dict[str, set[tuple[str, str]]]:
    """Return a type → the conditions and tasks of its cells; twins of other tasks have no part in it."""
    several = len({cell.config.get("task", {}).get("name", "") for cell in cells}) > 1
    types: dict[str, set[tuple[str, str]]] = {}
    for cell, columns in zip(cells, columns_of_cells(list(cells)), strict=True):
        tasks = [task for task in cell.tasks if not is_repetition(task, cell.tasks)]
        name = cell.config.get("task", {}).get("name", "") if several else ", ".join(tasks)
        types.setdefault(name, set()).update((columns.conditions, task) for task in tasks)
    return types


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
