"""The numbers of a sweep in one table: a row a model and quantizer, means over the tasks."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.report.tables import number
from bitsure.sweep.report.study_row import StudyRow, grouped, mean_in_words, over_tasks

METRICS = {
    "accuracy": "accuracy",
    "true_label_prob": "true-label probability",
    "nll": "NLL, nats",
    "expected_calibration_error": "binned calibration error",
}


@dataclass(frozen=True)
class NumberCell:
    """A number as the table shows it.

    Attributes:
        text: The number; empty where there is none.
        interval: Its interval; empty where it has none.
        value: What it is sorted by.
    """

    text: str
    interval: str
    value: float | None


@dataclass(frozen=True)
class ResultsTable:
    """A row for each model and quantizer.

    Attributes:
        words: Headings of the first columns.
        numbers: Headings of the others.
        rows: The words and the numbers of each row.
        over: What the numbers are, such as `mean over 4 tasks`.
        own_names: Label of a quantizer → its own name, made of its settings, where that is another; several with their models.
    """

    words: list[str]
    numbers: list[str]
    rows: list[tuple[list[str], list[NumberCell]]]
    over: str
    own_names: dict[str, str]


def results_table(models: list[StudyRow]) -> ResultsTable:
    """Return each run's numbers over its tasks, small models first.

    Args:
        models: A row for each model, quantizer, task and metric.
    """
    rows = over_tasks([row for row in models if row.metric in METRICS])
    several = len({row.questions for row in rows}) > 1
    known = {row.metric for row in rows} - ({"nll"} if several else set())  # there is no room for all
    metrics = [metric for metric in METRICS if metric in known]
    lines = []
    for (model, label, questions), members in grouped(
        rows, lambda row: (row.model, row.quantizer_label, row.questions)
    ).items():
        by_metric = {row.metric: row for row in members}
        first = members[0]
        size = None if first.size_bytes is None else first.size_bytes / 1e6
        bits = first.bits_per_weight
        numbers = [
            NumberCell("" if bits is None else f"{bits:.2f}", "", bits),
            NumberCell("" if size is None else f"{size:.4g}", "", size),
        ]
        for metric in metrics:
            numbers += _value_and_change(by_metric.get(metric))
        lines.append(([model, label, *([questions] if several else [])], numbers))
    headings = [heading for metric in metrics for heading in (METRICS[metric], "change")]
    words = ["model", "quantizer", *(["questions"] if several else [])]
    return ResultsTable(words, ["bits", "MB", *headings], lines, mean_in_words(rows), _own_names(rows))


def _own_names(rows: list[StudyRow]) -> dict[str, str]:
    """Return what `ResultsTable.own_names` says."""
    names: dict[str, dict[str, list[str]]] = {}  # label → own name → models
    for row in rows:
        if row.asked and row.asked != row.quantizer:
            models = names.setdefault(row.quantizer_label, {}).setdefault(row.quantizer, [])
            models += [row.model] if row.model not in models else []
    return {
        label: ", ".join(f"{name} on {', '.join(models)}" if len(own) > 1 else name for name, models in own.items())
        for label, own in names.items()
    }


def _value_and_change(row: StudyRow | None) -> list[NumberCell]:
    if row is None:
        return [NumberCell("", "", None)] * 2
    interval = ""
    if row.delta_ci_low is not None and row.delta_ci_high is not None:
        interval = f"[{number(row.delta_ci_low, True)}, {number(row.delta_ci_high, True)}]"
    change = NumberCell("" if row.delta is None else number(row.delta, True) + row.star, interval, row.delta)
    return [NumberCell(number(row.value), "", row.value), change]
