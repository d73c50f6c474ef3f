"""The study's table: its metrics for each quantizer, model and task, as text."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.report.tables import number
from bitsure.sweep.report.study_row import StudyRow, grouped, task_labels, tasks_of

PAPER = {  # the study's own numbers, as its notebook computes them
    "paper_compat/ace": "calibration error (ACE)",
    "paper_compat/conf": "confidence",
    "paper_compat/conf_true": "true-label confidence",
    "paper_compat/entropy": "entropy, bits",
}


@dataclass(frozen=True)
class StudyTable:
    """The study's table for one quantizer, as text."""

    columns: list[str]
    rows: list[tuple[str, str, list[str]]]  # model (empty below its first row), task, numbers
    paired: bool  # two numbers a column: in full precision and quantized


def study_tables(models: list[StudyRow], metrics: dict[str, str]) -> dict[str, StudyTable]:
    """Return the study's table for each quantizer, a row a model and task.

    Args:
        models: A row for each model, quantizer, task and metric.
        metrics: The metrics of the table and their names on the page.

    Returns:
        Quantizer → table, with a star where the primary test is significant. A sweep of full precision alone has one table.
    """
    rows = [row for row in models if row.metric in metrics]
    quantized = [row for row in rows if not row.is_full_precision]
    shown, paired = (quantized, True) if quantized else (rows, False)
    return {label: _study_table(members, metrics, paired) for label, members in grouped(shown, lambda row: row.label).items()}


def _study_table(rows: list[StudyRow], metrics: dict[str, str], paired: bool) -> StudyTable:
    known = {metric: name for metric, name in metrics.items() if any(row.metric == metric for row in rows)}
    tasks = tasks_of(rows)
    names = dict(zip(tasks, task_labels(tasks), strict=True))
    lines: list[tuple[str, str, list[str]]] = []
    for model, members in grouped(rows, lambda row: row.model).items():
        by_task: dict[tuple[str, str], dict[str, StudyRow]] = {}
        for row in sorted(members, key=lambda row: (tasks.index(row.task), row.mean_over)):
            by_task.setdefault((row.task, row.mean_over), {})[row.metric] = row
        for i, ((task, mean_over), by_metric) in enumerate(by_task.items()):
            cells = [cell for metric in known for cell in _number_cells(by_metric.get(metric), paired)]
            lines.append(("" if i else model, f"mean over {mean_over}" if mean_over else names[task], cells))
    return StudyTable(list(known.values()), lines, paired)


def _number_cells(row: StudyRow | None, paired: bool) -> list[str]:
    if row is None:
        return [""] * (1 + paired)
    value = number(row.value) + row.star
    return [number(row.baseline), value] if paired else [value]
