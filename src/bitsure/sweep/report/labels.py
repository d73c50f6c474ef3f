"""What rows are called and how they are ordered in pictures and tables."""

from __future__ import annotations

from collections.abc import Callable

from bitsure.metrics.measure import MACRO
from bitsure.sweep.report.sweep_table import FULL


def label(row: dict) -> str:
    """What a line is called that shows a quantizer."""
    name = "full precision" if row["quantizer"] == FULL else row["quantizer"]
    return f"{name}, {row['setting']}" if row["setting"] else name


def of_method(row: dict) -> str:
    return f"{row['method']}, {row['setting']}" if row["setting"] else row["method"]


def size(row: dict) -> str:
    """What a line is called that shows a size of a series."""
    if row["parameters"] is None:
        return row["model"]
    return row["model"] if row["series"] == row["model"] else f"{row['series']} {parameters(row['parameters'])}"


def parameters(n: int) -> str:
    """As models are named: 346K, 1.0M, 125M, 1.3B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if n >= unit:
            return f"{n / unit:.1f}{name}" if n < 10 * unit else f"{n / unit:.0f}{name}"
    return str(n)


def star(row: dict) -> str:
    """Where the one confirmatory test is significant; a mean over seeds has none."""
    return "*" if row["tests"] == "primary" and row["p_adjusted"] is not None and row["p_adjusted"] < row["alpha"] else ""


def overall(rows: list[dict]) -> list[dict]:
    """Those of the mean over tasks, or of the one task where there is no more."""
    tasks = {row["task"] for row in rows}
    chosen = MACRO if MACRO in tasks else min(tasks, default=MACRO)
    return [row for row in rows if row["task"] == chosen]


def short(tasks: list[str]) -> list[str]:
    """Names without what all have in common before a _, and the mean over tasks in words."""
    alone = [task for task in tasks if task != MACRO]
    first = alone[0].partition("_")[0] + "_" if alone else ""
    common = first if len(alone) > 1 and all(task.startswith(first) for task in alone) else ""
    return ["all tasks" if task == MACRO else task.removeprefix(common) for task in tasks]


def tasks_of(rows: list[dict]) -> list[str]:
    found = sorted({row["task"] for row in rows})
    return [task for task in found if task == MACRO] + [task for task in found if task != MACRO]


def groups(rows: list[dict], *by: str | Callable[[dict], str]) -> dict[tuple, list[dict]]:
    """Rows by columns or by functions of them, in an order that does not depend on the rows'."""
    groups: dict[tuple, list[dict]] = {}
    for row in sorted(rows, key=smaller):
        groups.setdefault(tuple(key(row) if callable(key) else row[key] for key in by), []).append(row)
    return groups


def smaller(row: dict) -> tuple:
    """Small models first; full precision before the quantizers, and of these the wide ones first."""
    width = -(row["bits_per_weight"] or 0)
    return row["parameters"] or 0, row["series"], row["model"], row["quantizer"] != FULL, row["method"], width, label(row)
