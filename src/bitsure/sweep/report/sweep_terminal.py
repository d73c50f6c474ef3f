"""A sweep's outcome for a terminal: what may be shipped, then the headline numbers of each model and quantizer."""

from __future__ import annotations

from textwrap import indent

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bitsure.base import terminal
from bitsure.base.decimals import decimal
from bitsure.report.terminal_summary import STYLES
from bitsure.sweep.report.choices import ModelChoice, badge, others, reason, summary
from bitsure.sweep.report.study_row import StudyRow, grouped, mean_in_words, over_tasks
from bitsure.sweep.report.sweep_report import SweepReport

COLUMNS = {  # the last are left out first where the terminal is narrow
    "accuracy": "accuracy",
    "true_label_prob": "true-label\nprob.",
    "expected_calibration_error": "binned\ncal. error",
    "confidence": "confidence",
}
NAME_WIDTH = 24  # columns for names at the least
NUMBER_WIDTH = 13  # columns of a number, its change and the gap before them


def show_sweep(report: SweepReport) -> None:
    """Print what may be shipped, the headline numbers, what is missing, and where everything is."""
    out = terminal.console()
    show_choices(out, report.choices)
    for table in headline_tables(report.models, out.width):
        out.print(table)
    for cell in report.cells:
        if not cell.done:
            out.print(
                f"{cell.state_in_words}: {cell.name}" + (f"\n{indent(cell.error, '    ')}" if cell.error else ""), markup=False
            )
    states = ", ".join(f"{n} {state}" for state, n in report.states.items())
    out.print(f"\n{len(report.cells)} cell{'s' * (len(report.cells) > 1)}: {states}", markup=False)
    if report.unplanned:
        out.print(f"left out, because another command made them: {', '.join(report.unplanned)}", markup=False)
    places = {"sweep": report.page, "numbers": report.directory / "sweep.parquet", "W&B": report.tracked}
    for name, place in places.items():
        if place is not None:
            out.print(f"{name:8} {place}", markup=False, soft_wrap=True)


def show_choices(out: Console, choices: list[ModelChoice]) -> None:
    """Print for each model which quantizer may be shipped, and what would settle the others."""
    if several := summary(choices):
        out.print(several)
    for choice in choices:
        line = Text.assemble(f"{choice.model.label}: ", (badge(choice), STYLES[choice.outcome]), f". {reason(choice)}")
        for name, labels in others(choice):
            line.append(f" {name}: {labels}.")
        out.print(line)
    if choices:
        out.print()


def headline_tables(models: list[StudyRow], width: int) -> list[Table]:
    """Return each metric's mean over the tasks and its difference from full precision, as many metrics as fit.

    Models that were asked different questions are in tables of their own.

    Args:
        models: A row for each model, quantizer, task and metric.
        width: Columns of the terminal.
    """
    rows = over_tasks([row for row in models if row.metric in COLUMNS])
    names = [NAME_WIDTH, *(cell_len(text) for row in rows for text in (row.model, f"  {row.quantizer_label}"))]
    shown = list(COLUMNS)[: max(1, (width - max(names)) // NUMBER_WIDTH)]
    asked = {row.questions: None for row in sorted(rows, key=lambda row: (row.conditions, row.task, row.mean_over))}
    return [_table([row for row in rows if row.questions == questions], shown, questions) for questions in asked]


def _table(rows: list[StudyRow], metrics: list[str], questions: str) -> Table:
    title = f"{questions or mean_in_words(rows)}, and its change from full precision"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("model and quantizer", overflow="fold")  # numbers are never cut
    for metric in metrics:
        table.add_column(COLUMNS[metric], no_wrap=True, min_width=NUMBER_WIDTH)
    for model, members in grouped(rows, lambda row: row.model).items():
        table.add_section()
        table.add_row(escape(model), style="bold")
        for label, measured in grouped(members, lambda row: row.quantizer_label).items():
            by_metric = {row.metric: row for row in measured}
            table.add_row(
                Padding(escape(label), (0, 0, 0, 2)), *(_value_and_change(by_metric.get(metric)) for metric in metrics)
            )
    return table


def _value_and_change(row: StudyRow | None) -> str:
    if row is None:
        return "–"
    value = decimal(row.value, ".3f")
    return value if row.delta is None else f"{value} {decimal(row.delta, '+.3f'):>6}"
