"""Format results as rows of strings: for the terminal and, the same rows, for the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from itertools import zip_longest
from typing import TypeVar

from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from bitsure.base.decimals import decimal, interval_end, with_ends
from bitsure.comparison.verdict_words import FULL_PRECISION_RUN
from bitsure.metrics.flips import BECAME_WRONG
from bitsure.metrics.metric_names import MACRO, PRIMARY
from bitsure.metrics.point_estimate import NO_INTERVAL
from bitsure.results import Comparison, Difference, Measurement, MetricsByTask

HEADLINE = {
    "accuracy": "accuracy",
    "confidence": "confidence",
    "true_label_prob": "true-label prob.",
    "nll": "NLL",
    "expected_calibration_error": "binned cal. error",
    "perplexity": "perplexity",  # of texts, which have no choices
    "word_perplexity": "perplexity, word",
    "bits_per_byte": "bits per byte",
}
NAME_WIDTH = 15  # columns that 80 leave for a task's name beside its numbers
UP_TO_INTERVAL = 7  # of `comparison_columns`, those before tests and effect sizes
ADJUSTED = {"primary": "Holm", "exploratory": "exploratory, adjusted"}  # family → how its adjusted p-values are called


def comparison_columns(level: float) -> tuple[str, ...]:
    """Return the headings of `comparison_rows`; level is the confidence level, in (0, 1)."""
    return ("task", "metric", "n", "full precision", "quantized", "difference", f"{level:.0%} interval", "test", "effect size")


def comparison_rows(comparison: Comparison, only: Container[str] | None = None) -> list[tuple[str, ...]]:
    """Return every difference as a row of strings.

    Args:
        comparison: Task → metric → difference.
        only: Names of the metrics to show; None for all.
    """
    return [
        _comparison_row(task, name, difference)
        for task, values in comparison.items()
        for name, difference in values.items()
        if not name.startswith("questions_") and (only is None or name in only)
    ]


def _comparison_row(task: str, name: str, difference: Difference) -> tuple[str, ...]:
    signed = difference.has_baseline or task == MACRO
    return (
        task,
        name,
        _asked(task, difference),
        number(difference.baseline) if difference.has_baseline else "",
        number(difference.quantized) if difference.has_baseline else "",
        number(difference.value, signed),
        interval(difference, signed),
        test_result(difference),
        effect_size(difference),
    )


def metric_columns(level: float) -> tuple[str, ...]:
    """Return the headings of `metric_rows`; level is the confidence level, in (0, 1)."""
    return ("task", "metric", "n", "value", f"{level:.0%} interval")


def metric_rows(metrics: MetricsByTask) -> list[tuple[str, ...]]:
    """Return every number of one run as a row of strings."""
    return [
        (task, name, _asked(task, measured), number(measured.value), interval(measured))
        for task, values in metrics.items()
        for name, measured in values.items()
    ]


def _asked(task: str, measured: Measurement) -> str:
    """Return over how many questions, or of a mean over tasks over how many tasks, a number is taken."""
    return f"{measured.n:,} task{'s' * (measured.n > 1)}" if task == MACRO else f"{measured.n:,}"


def unjoined(comparison: Comparison, baseline: str = FULL_PRECISION_RUN) -> list[str]:
    """Return a sentence for each task with questions that only one run has; `baseline` is what the first run is called."""
    sentences = []
    for task, values in comparison.items():
        if task == MACRO:
            continue
        joined, full, quant = (values[f"questions_{name}"].value for name in ("joined", "only_baseline", "only_quantized"))
        if full or quant:
            sentences.append(
                f"{task}: {joined:,} questions are compared; {full:,} are in {baseline} only, {quant:,} in the other run only."
            )
    return sentences


def number(value: float | None, sign: bool = False) -> str:
    """Return a number with four decimals, fewer if it is large (a perplexity, the NLL of a long answer); – for None."""
    return decimal(value, _form(value, sign))


def _form(value: float | None, sign: bool) -> str:
    """Return the format that leaves a number the digits of use."""
    size = abs(value or 0)
    return "+" * sign + next((digits for below, digits in ((10, ".4f"), (1000, ".2f"), (1e6, ".0f")) if size < below), ".2e")


def interval(measured: Measurement, sign: bool = False) -> str:
    """Return an interval in brackets, or why there is none; empty where the number has none by its nature."""
    if measured.ci_low is None:
        reason = measured.interval or ""
        return reason if reason.startswith(NO_INTERVAL) else ""
    low, high = (interval_end(end, _form(end, sign)) for end in (measured.ci_low, measured.ci_high))
    return f"[{low}, {high}]"


def significant(difference: Difference | None, sign: bool = False) -> str:
    """Return a number and its interval in three digits, however small they are; empty where there is no number."""
    if difference is None or difference.value is None:
        return ""
    form = "+" * sign + ".3g"
    if difference.ci_low is None or difference.ci_high is None:
        return decimal(difference.value, form)
    return with_ends(difference.value, difference.ci_low, difference.ci_high, form)


def test_result(difference: Difference) -> str:
    """Return a test with its p-values, and a star if it is primary and significant; empty where there is no test.

    The first p-value is unadjusted, as is the interval that it stands beside.
    """
    if difference.p_value is None:
        return ""
    result = f"{difference.test}: {p_value(difference.p_value)}"
    if difference.p_adjusted is None:
        return f"{result} ({difference.family})" if difference.family else result
    adjusted = f"{ADJUSTED[difference.family or 'exploratory']}: {p_value(difference.p_adjusted)}"
    return f"{result} ({adjusted})" + (" *" if difference.significant else "")


def effect_size(difference: Difference) -> str:
    """Return a test's effect size with its interval; a share says of what."""
    if difference.effect_size is None or difference.effect_size_ci is None:
        return ""
    low, high = difference.effect_size_ci
    if difference.effect == BECAME_WRONG:
        return f"{difference.effect_size:.2f} [{low:.2f}, {high:.2f}] {BECAME_WRONG}"
    return with_ends(difference.effect_size, low, high, "+.2f")


def p_value(p: float | None) -> str:
    """Return a p-value in words, such as `p = 0.031`; – for None."""
    if p is None:
        return "p = –"
    return "p < 1e-4" if p < 1e-4 else f"p = {p:.2g}"


def terminal_table(
    metrics: MetricsByTask,
    comparison: Comparison | None,
    title: str,
    level: float,
    alpha: float,
    sides: tuple[str, str] = ("full", "quantized"),
) -> Table:
    """Return the headline numbers of each task, narrow enough for 80 columns.

    Args:
        metrics: The run's numbers, shown if there is no comparison.
        comparison: The run against full precision.
        title: The table's title.
        level: The confidence level of the intervals.
        alpha: The significance level of the primary tests.
        sides: The headings of the two compared runs.
    """
    table = Table(
        title=escape(title), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False
    )
    columns = ["task", "", *sides, "difference"] if comparison else ["task", "", "value"]
    for i, column in enumerate([*columns, f"{level:.0%} interval"]):
        # numbers are never cut: a task's long name continues on the next line
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=i > 0, overflow="fold")
    if comparison and any(PRIMARY in values and values[PRIMARY].significant for values in comparison.values()):
        table.caption = f"* significant at α = {alpha:g}: paired t-test on the true-label probability, Holm over the tasks"
    if comparison:
        for task, values in comparison.items():
            if task != MACRO:
                _add_task(table, task, values, _difference_cells)
    else:
        for task, measured in metrics.items():
            if task != MACRO:
                _add_task(table, task, measured, _metric_cells)
    return table


M = TypeVar("M", bound=Measurement)


def _add_task(table: Table, task: str, values: Mapping[str, M], cells: Callable[[M], list[str]]) -> None:
    table.add_section()
    names = [name for name in HEADLINE if name in values]
    firsts = [*_pieces(task), f"  n = {values[names[1]].n:,}"] if len(names) > 1 else [task]
    for first, name in zip_longest(firsts, names):
        table.add_row(escape(first or ""), *([HEADLINE[name], *cells(values[name])] if name else []))


def _pieces(name: str) -> list[str]:
    """Return a name in pieces that fit into NAME_WIDTH columns, divided before or behind punctuation where that is possible."""
    pieces = [""]
    for part in re.findall(r"[^\W_]*[_\-./]+|[@|]?[^\W_]+|.", name):
        if pieces[-1] and cell_len(pieces[-1] + part) > NAME_WIDTH:
            pieces.append("")
        pieces[-1] += part
    return pieces


def _difference_cells(difference: Difference) -> list[str]:
    star = " *" if difference.significant else "  "
    numbers = [number(difference.baseline), number(difference.quantized), number(difference.value, sign=True) + star]
    return [*numbers, interval(difference, sign=True)]


def _metric_cells(measured: Measurement) -> list[str]:
    return [number(measured.value), interval(measured)]
