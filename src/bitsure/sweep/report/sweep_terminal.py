"""A sweep's headline numbers for a terminal: over all tasks, a row a model and quantizer."""

from __future__ import annotations

from textwrap import indent

from rich import box
from rich.markup import escape
from rich.table import Table

from bitsure.base import terminal
from bitsure.sweep.report.study_row import StudyRow, grouped, over_tasks
from bitsure.sweep.report.sweep_report import SweepReport

COLUMNS = {
    "accuracy": "accu-\nracy",
    "confidence": "confi-\ndence",
    "true_label_prob": "true-\nlabel\nprob.",
    "expected_calibration_error": "calib.\nerror",
}


def show_sweep(report: SweepReport) -> None:
    """Print the headline numbers, what is missing, and where everything is."""
    out = terminal.console()
    out.print(headline(report.models))
    for cell in report.cells:
        if not cell.done:
            out.print(f"{cell.state}: {cell.name}" + (f"\n{indent(cell.error, '    ')}" if cell.error else ""), markup=False)
    states = ", ".join(f"{n} {state}" for state, n in report.states.items())
    out.print(f"\n{len(report.cells)} cell{'s' * (len(report.cells) > 1)}: {states}", markup=False)
    if report.unplanned:
        out.print(f"left out, because another command made them: {', '.join(report.unplanned)}", markup=False)
    for name, path in {"sweep": report.page, "numbers": report.directory / "sweep.parquet"}.items():
        out.print(f"{name:8} {path}", markup=False, soft_wrap=True)


def headline(models: list[StudyRow]) -> Table:
    """Return each metric's mean over the tasks and, in the next column, its difference from full precision."""
    table = Table(title="mean over the tasks", title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for name in ("model", "quantizer"):  # a long one wraps; numbers are never cut
        table.add_column(name, overflow="fold")
    for name in COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("Δ", justify="right", no_wrap=True)
    rows = over_tasks([row for row in models if row.metric in COLUMNS])
    for model, members in grouped(rows, lambda row: row.model).items():
        table.add_section()
        for k, (label, measured) in enumerate(grouped(members, lambda row: row.label).items()):
            by_metric = {row.metric: row for row in measured}
            numbers = [text for metric in COLUMNS for text in _value_and_change(by_metric.get(metric))]
            table.add_row(escape(model) if k == 0 else "", escape(label), *numbers)
    return table


def _value_and_change(row: StudyRow | None) -> tuple[str, str]:
    if row is None:
        return "–", ""
    return _short(row.value), "" if row.delta is None else _short(row.delta, "+")


def _short(value: float, sign: str = "") -> str:
    """Return three decimals: that many columns leave no room for more; adding 0.0 avoids -0.000."""
    return f"{round(value, 3) + 0.0:{sign}.3f}"
