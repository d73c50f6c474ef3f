"""The comparison as a table a person wants to read: in the terminal and, by the same rows, on the page."""

from __future__ import annotations

from rich import box
from rich.table import Table

HEADLINE = {
    "accuracy": "accuracy",
    "confidence": "confidence",
    "true_label_prob": "true-label prob.",
    "expected_calibration_error": "calibration error",
}


def columns(comparison: dict | None, level: float) -> tuple[str, ...]:
    """The headings of `rows`."""
    before = "full precision" if comparison else "value"
    return ("task", "n", "metric", before, "quantized", "difference", f"{level:.0%} interval", "")


def rows(metrics: dict, comparison: dict | None) -> list[tuple[str, ...]]:
    """Every number as a row of strings under `columns`."""
    table = []
    for task, values in (comparison or metrics).items():
        for name, one in values.items():
            if name.startswith("questions_"):
                continue
            paired = "baseline" in one
            before = one.get("baseline") if comparison else one["value"]
            table.append(
                (
                    task,
                    f"{one['n']:,}",
                    name,
                    number(before),
                    number(one.get("quantized")) if paired else "",
                    number(one["value"], sign=paired) if comparison else "",
                    interval(one, sign=paired),
                    note(one),
                )
            )
    return table


def number(value: float | None, sign: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if sign else ''}.4f}"


def interval(one: dict, sign: bool) -> str:
    """The interval, or nothing where there is none."""
    if one["ci_low"] is None:
        return ""
    return f"[{number(one['ci_low'], sign)}, {number(one['ci_high'], sign)}]"


def note(one: dict) -> str:
    """What its test said: the adjusted p-value of the primary test, the plain one of an exploratory test."""
    if "p_adjusted" in one:
        return f"p = {p_value(one['p_adjusted'])} (Holm)" + (" *" if one["significant"] else "")
    return f"p = {p_value(one['p_value'])} (exploratory)" if "p_value" in one else ""


def p_value(p: float) -> str:
    return "< 1e-4" if p < 1e-4 else f"{p:.2g}"


def terminal_table(metrics: dict, comparison: dict | None, title: str, level: float, alpha: float) -> Table:
    """The headline numbers per task, narrow enough for 80 columns."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    columns = ["task", "", "full", "quantized", "difference", f"{level:.0%} interval"]
    if comparison:
        table.caption = f"* significant at α = {alpha:g}: paired t-test on the true-label probability, Holm over the tasks"
    else:
        columns = ["task", "", "value", f"{level:.0%} interval"]
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    for task, values in (comparison or metrics).items():
        table.add_section()
        for i, (name, label) in enumerate(HEADLINE.items()):
            one = values[name]
            first = task if i == 0 else f"  n = {one['n']:,}" if i == 1 else ""
            if comparison:
                star = " *" if one.get("significant") else "  "
                numbers = [number(one["baseline"]), number(one["quantized"]), number(one["value"], sign=True) + star]
            else:
                numbers = [number(one["value"])]
            table.add_row(first, label, *numbers, interval(one, sign=bool(comparison)))
    return table
