"""A sweep's headline numbers for a terminal: over all tasks, a row a model and quantizer."""

from __future__ import annotations

from textwrap import indent

from rich import box
from rich.markup import escape
from rich.table import Table

from bitsure.base import terminal
from bitsure.sweep.report.study_row import StudyRow, grouped, over_tasks
from bitsure.sweep.report.sweep_report import SweepReport

COLUMNS = {  # the last are left out first where the terminal is narrow
    "accuracy": "accuracy",
    "true_label_prob": "true-label\nprob.",
    "expected_calibration_error": "calibration\nerror",
    "confidence": "confidence",
}
NAME_WIDTH = 24  # columns for names at the least, whose longest words are folded
NUMBER_WIDTH = 13  # columns of a number, its change and the gap before them


def show_sweep(report: SweepReport) -> None:
    """Print the headline numbers, what is missing, and where everything is."""
    out = terminal.console()
    out.print(headline(report.models, out.width))
    for cell in report.cells:
        if not cell.done:
            out.print(f"{cell.state}: {cell.name}" + (f"\n{indent(cell.error, '    ')}" if cell.error else ""), markup=False)
    states = ", ".join(f"{n} {state}" for state, n in report.states.items())
    out.print(f"\n{len(report.cells)} cell{'s' * (len(report.cells) > 1)}: {states}", markup=False)
    if report.unplanned:
        out.print(f"left out, because another command made them: {', '.join(report.unplanned)}", markup=False)
    for name, path in {"sweep": report.page, "numbers": report.directory / "sweep.parquet"}.items():
        out.print(f"{name:8} {path}", markup=False, soft_wrap=True)


def headline(models: list[StudyRow], width: int) -> Table:
    """Return each metric's mean over the tasks and its difference from full precision, as many metrics as fit.

    Args:
        models: A row for each model, quantizer, task and metric.
        width: Columns of the terminal.
    """
    shown = dict(list(COLUMNS.items())[: max(1, (width - NAME_WIDTH) // NUMBER_WIDTH)])
    title = "mean over the tasks, and its change from full precision"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("model and quantizer", overflow="fold")  # a long one wraps; numbers are never cut
    for name in shown.values():
        table.add_column(name, no_wrap=True, min_width=NUMBER_WIDTH)
    rows = over_tasks([row for row in models if row.metric in shown])
    for model, members in grouped(rows, lambda row: row.model).items():
        table.add_section()
        table.add_row(escape(model), style="bold")
        for label, measured in grouped(members, lambda row: row.label).items():
            by_metric = {row.metric: row for row in measured}
            table.add_row(f"  {escape(label)}", *(_value_and_change(by_metric.get(metric)) for metric in shown))
    return table


def _value_and_change(row: StudyRow | None) -> str:
    if row is None:
        return "–"
    return _short(row.value) if row.delta is None else f"{_short(row.value)} {_short(row.delta, '+')}"


def _short(value: float, sign: str = "") -> str:
    """Return three decimals: that many columns leave no room for more; adding 0.0 avoids -0.000."""
    return f"{round(value, 3) + 0.0:{sign}.3f}"
