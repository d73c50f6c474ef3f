"""What changes where: the change in true-label probability, model × task, a panel a quantizer."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.base.decimals import decimal
from bitsure.base.plain_text import without_controls
from bitsure.metrics.metric_names import MACRO, PRIMARY
from bitsure.report.chart_layers import category_axis, heat_layers
from bitsure.report.charts import Chart, Spec, table
from bitsure.report.tables import number
from bitsure.sweep.report.line_panels import with_interval
from bitsure.sweep.report.picture import Picture
from bitsure.sweep.report.study_row import StudyRow, grouped, task_labels, tasks_of

MOST_WRITTEN = 600  # numbers; beyond that only the colours can be read
WRITTEN, COLOURED = (48, 22), (18, 14)  # pixels of a field, with a number and without
WIDEST = 1200  # pixels of the PNG
MARGIN = 120  # pixels beside the fields, for names


def heat_map(rows: list[StudyRow]) -> Picture | None:
    """Return the changes; None if there are none.

    If there are more quantizers than models, the panels are models and the rows quantizers. A mean over tasks has a column only
    where all runs were asked the same ones.
    """
    rows = [row for row in rows if row.metric == PRIMARY and row.delta is not None]
    differ = any(row.mean_over for row in rows)
    shown = [row for row in rows if not row.mean_over]
    if not shown:
        return None
    by_label, by_model = (grouped(shown, key) for key in (lambda row: row.label, lambda row: row.model))
    models_are_panels = len(by_model) < len(by_label)
    panels, names = (by_model, list(by_label)) if models_are_panels else (by_label, list(by_model))
    layout = _Layout(
        names=names,
        tasks=tasks_of(shown),
        models_are_panels=models_are_panels,
        is_written=len(shown) <= MOST_WRITTEN,
        most=max(abs(row.delta or 0.0) for row in shown) or 1.0,
    )
    charts = [Chart(_panel(title, members, layout), _finding(title, members)) for title, members in panels.items()]
    caption = (
        "Change in the mean true-label probability. Orange: lost; purple: gained. * : significant by the study's paired "
        "t-test, Holm over all models, quantizers and tasks of this sweep. A star for one model and none for another is not "
        "evidence that the two differ: see the contrasts. An empty field was not asked."
    )
    if differ:
        caption += " Runs were asked different tasks, so there is no column of means over tasks."
    width = layout.field[0] * len(layout.tasks) + MARGIN
    worst = min(shown, key=lambda row: row.delta or 0.0)
    finding = f"The lowest change is {number(worst.delta, True)}, on {_task(worst)} of {worst.model} by {worst.label}."
    columns = max(1, WIDEST // width)
    return Picture("heat_map", "What changes where: model × task", caption, finding, charts, [], rows, columns=columns)


@dataclass(frozen=True)
class _Layout:
    """What all panels have in common: the rows and columns, and the largest change."""

    names: list[str]
    tasks: list[str]
    models_are_panels: bool
    is_written: bool
    most: float

    @property
    def field(self) -> tuple[int, int]:
        """Width and height of a field, in pixels."""
        return WRITTEN if self.is_written else COLOURED


def _panel(title: str, rows: list[StudyRow], layout: _Layout) -> Spec:
    """Return a panel: a row a name, a column a task."""
    labels = dict(zip(layout.tasks, task_labels(layout.tasks), strict=True))
    wide, high = layout.field
    columns: dict[str, list[object]] = {
        "name": [row.label if layout.models_are_panels else row.model for row in rows],
        "task": [labels[row.task] for row in rows],
        "value": [row.delta for row in rows],
        "text": [f"{decimal(row.delta, '+.3f')}{row.star}" for row in rows],
        "hover": [
            f"{row.label}, {row.model}, {labels[row.task]}: "
            f"{with_interval(row.delta, row.delta_ci_low, row.delta_ci_high, sign=True)}{row.star}, {row.n:,} questions"
            for row in rows
        ],
    }
    x = category_axis("task", [labels[task] for task in layout.tasks], None, labelAngle=-40, labelPadding=4)
    y = category_axis("name", layout.names, None, labelLimit=200, labelPadding=4)
    scale = {"scheme": "purpleorange", "reverse": True, "domain": [-layout.most, layout.most]}
    return {
        "title": {"text": without_controls(title), "limit": wide * len(layout.tasks) + MARGIN, "fontSize": 12},
        "data": {"values": table(columns)},
        "width": {"step": wide},
        "height": {"step": high},
        "layer": heat_layers(x, y, scale, written=layout.is_written),
    }


def _finding(title: str, rows: list[StudyRow]) -> str:
    """Return the largest losses of a panel."""
    worst = sorted(rows, key=lambda row: row.delta or 0.0)[:3]
    changes = ", ".join(f"{number(row.delta, True)} on {_task(row)} ({row.label}, {row.model})" for row in worst)
    return f"{title}: the lowest changes are {changes}."


def _task(row: StudyRow) -> str:
    return "all tasks" if row.task == MACRO else row.task
