"""Pictures of metrics over models: against the number of parameters, and what each bit buys."""

from __future__ import annotations

from bitsure.report.chart_layers import number_axis, reference_line
from bitsure.report.charts import Chart
from bitsure.report.tables import number
from bitsure.sweep.report.line_panels import (
    LinePoint,
    by_task,
    findings,
    line_layers,
    panel,
    parameter_axis,
    quantizer_keys,
    series_of,
    size_keys,
    size_name,
    sizes_of,
    tasks_left_out,
    with_interval,
)
from bitsure.sweep.report.picture import LegendKey, Picture
from bitsure.sweep.report.study_row import StudyRow, grouped
from bitsure.sweep.report.sweep_statistics import STUDY

OVER_SIZES = ("true_label_prob", "accuracy", "expected_calibration_error", "confidence")
OVER_BITS = ("true_label_prob", "accuracy")


def scale_picture(rows: list[StudyRow], metric: str) -> Picture | None:
    """Return a metric against the number of parameters, a line a quantizer; None unless one series has two sizes.

    Means over different tasks are not compared: they have no panel.
    """
    rows = [row for row in rows if row.metric == metric and row.parameters and not row.mean_over]
    by_series = grouped(rows, lambda row: row.series)
    if not any(len({row.parameters for row in members}) > 1 for members in by_series.values()):
        return None
    keys, panels = quantizer_keys(rows), []
    x, y = parameter_axis(rows), number_axis(STUDY[metric])
    for task, of_task in by_task(rows).items():
        points = [
            LinePoint(
                row.label, row.series, float(row.parameters or 0), row.value, row.ci_low, row.ci_high, _hover(row, metric)
            )
            for row in sorted(of_task, key=lambda row: row.parameters or 0)
        ]
        panels.append(
            Chart(
                panel(task, line_layers(points, keys, x, y)),
                f"{STUDY[metric].capitalize()}, {task}: {_over_sizes(of_task)}",
                series_of(points, keys),
                "parameters",
            )
        )
    caption = (
        "Every line is a quantizer, every shape a series of models. Bars are intervals: over questions for one model, over "
        f"questions and training seeds for a size that was trained more than once.{tasks_left_out(rows)}"
    )
    title = f"{STUDY[metric].capitalize()} against size"
    return Picture(f"scale_{metric}", title, caption, panels[0].finding, panels, keys, rows)


def _hover(row: StudyRow, metric: str) -> str:
    return f"{row.label}: {row.size_label}, {STUDY[metric]} {with_interval(row.value, row.ci_low, row.ci_high)}" + (
        f", {row.draws_label}" if row.draws else ""
    )


def _over_sizes(rows: list[StudyRow]) -> str:
    """Return from where to where a metric goes between the smallest and the largest size."""
    parts = {}
    for (series, label), line in grouped(rows, lambda row: (row.series, row.label)).items():
        first, last = (choose(line, key=lambda row: row.parameters or 0) for choose in (min, max))
        if first.parameters != last.parameters:
            name = label if len({row.series for row in rows}) == 1 else f"{series}, {label}"
            parts[name] = f"{number(first.value)} at {size_name(first)}, {number(last.value)} at {size_name(last)}"
    return findings(parts)


def bits_picture(rows: list[StudyRow], metric: str) -> Picture | None:
    """Return the change against bits per weight, a line a size and method; None unless there are two widths.

    Means over different tasks are not compared: they have no panel.
    """
    rows = [row for row in rows if row.metric == metric and not row.is_full_precision and not row.mean_over]
    rows = [row for row in rows if row.bits_per_weight and row.delta is not None]
    by_method = grouped(rows, lambda row: (row.method, row.size_label))
    if not any(len({row.bits_per_weight for row in members}) > 1 for members in by_method.values()):
        return None
    methods = list(dict.fromkeys(row.method_label or "" for row in rows))
    keys = size_keys(sizes_of(rows), methods if len(methods) > 1 else ("",))
    ticks = sorted({round(row.bits_per_weight or 0) for row in rows})
    domain = [0.9 * ticks[0], 1.15 * ticks[-1]]
    x = number_axis("bits per weight", {"type": "log", "domain": domain, "nice": False}, values=ticks, format="d", grid=False)
    y = number_axis(f"change in {STUDY[metric]}", {"zero": True})
    panels = []
    for task, of_task in by_task(rows).items():
        points = [
            LinePoint(
                _bits_key(row, keys),
                (row.method_label or "") if len(methods) > 1 else "",
                float(row.bits_per_weight or 0),
                row.delta,
                row.delta_ci_low,
                row.delta_ci_high,
                f"{_bits_key(row, keys)}: {row.label}, {row.bits_per_weight:.2f} bits, change "
                f"{with_interval(row.delta, row.delta_ci_low, row.delta_ci_high, sign=True)}",
            )
            for row in sorted(of_task, key=lambda row: row.bits_per_weight or 0)
        ]
        none = reference_line([(domain[0], 0), (domain[1], 0)], x, y)
        panels.append(
            Chart(
                panel(task, [none, *line_layers(points, keys, x, y)]),
                f"Change in {STUDY[metric]}, {task}: {_over_bits(of_task, keys)}",
                series_of(points, keys),
                "bits per weight",
            )
        )
    caption = (
        "Quantized − full precision on the same questions; scales and zero points count as bits. Bars are "
        f"intervals.{tasks_left_out(rows)}"
    )
    title = f"What each bit buys: {STUDY[metric]}"
    return Picture(f"bits_{metric}", title, caption, panels[0].finding, panels, keys, rows)


def _bits_key(row: StudyRow, keys: list[LegendKey]) -> str:
    label = f"{row.size_label}, {row.method_label}"
    return label if any(key.label == label for key in keys) else row.size_label


def _over_bits(rows: list[StudyRow], keys: list[LegendKey]) -> str:
    """Return the change at the fewest and at the most bits of each line."""
    parts = {}
    for key, line in grouped(rows, lambda row: _bits_key(row, keys)).items():
        first, last = (choose(line, key=lambda row: row.bits_per_weight or 0) for choose in (min, max))
        if first is not last:
            parts[key] = (
                f"{number(first.delta, True)} at {first.bits_per_weight:.1f} bits, {number(last.delta, True)} at "
                f"{last.bits_per_weight:.1f}"
            )
    return findings(parts)
