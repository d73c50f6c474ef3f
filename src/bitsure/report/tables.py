"""The comparison as a table a person wants to read: in the terminal and, by the same rows, on the page."""

from __future__ import annotations

from collections.abc import Container

from rich import box
from rich.markup import escape
from rich.table import Table

from bitsure.comparison.compare import was_compared
from bitsure.metrics.measure import MACRO
from bitsure.metrics.significance import BECAME_WRONG
from bitsure.results import Comparison, Difference, Measurement, MetricsByTask

HEADLINE = {
    "accuracy": "accuracy",
    "confidence": "confidence",
    "true_label_prob": "true-label prob.",
    "nll": "NLL",
    "expected_calibration_error": "calibration error",
    "perplexity": "perplexity",  # of what has no choices
    "word_perplexity": "perplexity, word",
    "bits_per_byte": "bits per byte",
}


def comparison_columns(level: float) -> tuple[str, ...]:
    """The headings of `comparison_rows`."""
    return ("task", "metric", "n", "full precision", "quantized", "difference", f"{level:.0%} interval", "test", "effect size")


def comparison_rows(comparison: Comparison, only: Container[str] | None = None) -> list[tuple[str, ...]]:
    """Every difference as a row of strings, or those of some metrics."""
    return [
        (
            task,
            name,
            f"{one.n:,}",
            number(one.baseline) if one.has_baseline else "",
            number(one.quantized) if one.has_baseline else "",
            number(one.value, sign=one.has_baseline or task == MACRO),
            interval(one, sign=one.has_baseline or task == MACRO),
            note(one),
            effect(one),
        )
        for task, values in comparison.items()
        for name, one in values.items()
        if not name.startswith("questions_") and (only is None or name in only)
    ]


def metric_columns(level: float) -> tuple[str, ...]:
    """The headings of `metric_rows`."""
    return ("task", "metric", "n", "value", f"{level:.0%} interval")


def metric_rows(metrics: MetricsByTask) -> list[tuple[str, ...]]:
    """Every number of one run as a row of strings."""
    return [
        (task, name, f"{one.n:,}", number(one.value), interval(one, sign=False))
        for task, values in metrics.items()
        for name, one in values.items()
    ]


def unjoined(comparison: Comparison) -> list[str]:
    """A sentence for each task of which not all questions are in both runs."""
    sentences = []
    for task, values in comparison.items():
        if task == MACRO:
            continue
        joined, full, quant = (values[f"questions_{name}"].value for name in ("joined", "only_baseline", "only_quantized"))
        if full or quant:
            sentences.append(
                f"{task}: {joined:,} questions are compared; {full:,} are in the full-precision run alone, {quant:,} in the "
                "quantized run alone."
            )
    return sentences


def number(value: float | None, sign: bool = False) -> str:
    """Four decimals, and fewer of what is larger: a perplexity, the NLL of a long answer."""
    if value is None:
        return "–"
    digits = next((digits for below, digits in ((10, ".4f"), (1000, ".2f"), (1e6, ".0f")) if abs(value) < below), ".2e")
    return f"{value:{'+' if sign else ''}{digits}}"


def interval(one: Measurement, sign: bool) -> str:
    """The interval, or nothing where there is none."""
    if one.ci_low is None:
        return ""
    return f"[{number(one.ci_low, sign)}, {number(one.ci_high, sign)}]"


def note(one: Difference) -> str:
    """What its test said: adjusted p-values, and whether the test was the primary one."""
    if one.p_value is None:
        return ""
    p = p_value(one.p_value if one.p_adjusted is None else one.p_adjusted)
    if one.family == "primary":
        return f"{one.test}: {p} (Holm)" + (" *" if one.significant else "")
    return f"{one.test}: {p} ({one.family})"


def effect(one: Difference) -> str:
    """The effect size of what was tested, with its interval; a share says of what."""
    if one.effect_size is None or one.effect_size_ci is None:
        return ""
    low, high = one.effect_size_ci
    if one.effect == BECAME_WRONG:
        return f"{one.effect_size:.2f} [{low:.2f}, {high:.2f}] {BECAME_WRONG}"
    return f"{one.effect_size:+.2f} [{low:+.2f}, {high:+.2f}]"


def p_value(p: float) -> str:
    return "p < 1e-4" if p < 1e-4 else f"p = {p:.2g}"


def terminal_table(metrics: MetricsByTask, comparison: Comparison | None, title: str, level: float, alpha: float) -> Table:
    """The headline numbers per task, narrow enough for 80 columns."""
    table = Table(
        title=escape(title), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False
    )
    columns = ["task", "", "full", "quantized", "difference", f"{level:.0%} interval"]
    if comparison and any(
        "true_label_prob" in values and values["true_label_prob"].significant for values in comparison.values()
    ):
        table.caption = f"* significant at α = {alpha:g}: paired t-test on the true-label probability, Holm over the tasks"
    if not comparison:
        columns = ["task", "", "value", f"{level:.0%} interval"]
    for i, column in enumerate(columns):
        # numbers are never cut: a task's long name goes on in the next line
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=i > 0, overflow="fold")
    for task, values in (comparison or metrics).items():
        if task == MACRO or (comparison and not was_compared(values)):
            continue
        table.add_section()
        for i, (name, label) in enumerate((name, label) for name, label in HEADLINE.items() if name in values):
            one = values[name]
            first = task if i == 0 else f"  n = {one.n:,}" if i == 1 else ""
            if comparison:
                star = " *" if one.significant else "  "
                numbers = [number(one.baseline), number(one.quantized), number(one.value, sign=True) + star]
            else:
                numbers = [number(one.value)]
            table.add_row(escape(first), label, *numbers, interval(one, sign=bool(comparison)))
    return table
