"""Draw a run's figures, one of each kind for each task with choices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitsure.base.files import make_folder
from bitsure.comparison.noise_control import HARM
from bitsure.config.metric import MetricSettings
from bitsure.metrics import deferral
from bitsure.metrics.bins import Bins, ConfidentAnswers, ReliabilityDiagram, reliability_diagram
from bitsure.metrics.choice_metrics import confidence_bins
from bitsure.metrics.divergence import IDENTICAL
from bitsure.metrics.metric_names import MACRO
from bitsure.metrics.next_token import scored_tokens
from bitsure.metrics.point_estimate import score_interval
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.ranking import risk_coverage
from bitsure.metrics.text_metrics import confident_answers
from bitsure.records.answer_units import is_open, is_written
from bitsure.records.record import Records, by_task, has_choices
from bitsure.records.text_units import has_tokens
from bitsure.report.attribution_chart import attribution_chart
from bitsure.report.chart_layers import FULL, QUANTIZED, lines, number_axis, points, reference_line
from bitsure.report.charts import INK, WIDTH, Chart, DrawnChart, Pictures, Row, Series, Spec, file_name, save_png, table, titled
from bitsure.report.divergence_section import divergence_chart
from bitsure.report.fidelity_charts import fidelity_chart
from bitsure.report.forest import forest_charts
from bitsure.report.report_contents import Report
from bitsure.report.retrieval_charts import retrieval_chart
from bitsure.report.retrieval_section import retrieval_sections
from bitsure.report.shift_charts import confidence_shift_chart, shift_chart
from bitsure.report.tables import interval, number
from bitsure.results import Attribution, Comparison, Difference, Measurement

CURVE_POINTS = 100
CONFIDENCE, DEFERRED = "confidence", "share answered in full precision"  # titles of axes
KINDS = (
    "forest",
    "reliability",
    "risk_coverage",
    "confidence_shift",
    "shift",
    "deferral",
    "fidelity",
    "attribution",
    "retrieval",
    "divergence",
)
Models = dict[str, QuestionSet]  # full precision, quantized → its answers
COLOURS = {"full precision": FULL, "quantized": QUANTIZED}


def draw(
    records: Records,
    baseline: Records | None,
    report: Report,
    metric: MetricSettings,
    directory: Path,
    attribution: Attribution | None = None,
) -> Pictures:
    """Draw every figure of a run.

    Args:
        records: The run's records.
        baseline: The same questions in full precision, if there is a comparison.
        report: The numbers and the verdict.
        metric: The settings that the reliability diagrams follow.
        directory: Where the PNG files go; it is made if need be.
        attribution: Which parts the loss of fidelity comes from, where that was measured.

    Returns:
        Kind (of KINDS) → task (of a forest plot: metric) → the chart and its PNG file; forest plots have none.
    """
    make_folder(directory)
    pictures: Pictures = {kind: {} for kind in KINDS}

    def add(kind: str, task: str, chart: Chart) -> None:
        pictures[kind][task] = save_png(chart, directory / f"{kind}_{file_name(task)}.png")

    pictures["forest"] = _forests(report)
    before = by_task(baseline) if baseline is not None else {}
    for task, own in by_task(records).items():
        if has_choices(own) or (is_written(own) and not is_open(own)):
            models = _models(own, before.get(task), baseline is not None, metric)
            add("reliability", task, reliability_chart(task, models, metric))
            add("risk_coverage", task, risk_coverage_chart(task, models))
        elif has_tokens(own):
            of_full = {"full precision": scored_tokens(before[task])} if task in before else {}
            tokens = of_full | {"quantized" if baseline is not None else "full precision": scored_tokens(own)}
            add("reliability", task, reliability_chart(task, tokens, metric, "tokens"))
    for kind, task, chart in _compared_charts(report.comparison or {}):
        add(kind, task, chart)
    for task, chart in _retrieval_charts(report).items():
        add("retrieval", task, chart)
    if attribution is not None and attribution.quantized.kl_divergence > 0:
        add("attribution", attribution.text_name, attribution_chart(attribution))
    return pictures


def _forests(report: Report) -> dict[str, DrawnChart]:
    if report.comparison is None or report.verdict is None:
        return {}
    return {name: DrawnChart(chart, None) for name, chart in forest_charts(report.comparison, report.verdict).items()}


def _retrieval_charts(report: Report) -> dict[str, Chart]:
    """Return task → the heat maps of each model, full precision first."""
    models = {"full precision": report.baseline_metrics or report.metrics}
    if report.baseline_metrics:
        models["quantized"] = report.metrics
    return {
        section.task: retrieval_chart(section, {name: metrics.get(section.task, {}) for name, metrics in models.items()})
        for section in retrieval_sections(report.metrics, report.comparison)
    }


def _compared_charts(comparison: Comparison) -> Iterator[tuple[str, str, Chart]]:
    """Yield the charts that are drawn from a comparison alone: kind, task and chart."""
    for task, values in comparison.items():
        if task != MACRO and HARM[0] in values:
            yield "confidence_shift", task, confidence_shift_chart(task, values)
            yield "shift", task, shift_chart(task, values)
        if task != MACRO and f"deferral_accuracy_{deferral.NAMES[0]}" in values:
            yield "deferral", task, deferral_chart(task, values)
        if "same_top_token" in values and (by_confidence := fidelity_chart(task, values)) is not None:
            yield "fidelity", task, by_confidence
        if IDENTICAL in values and (by_margin := divergence_chart(task, values)) is not None:
            yield "divergence", task, by_margin


def _models(own: pa.Table, before: pa.Table | None, is_quantized: bool, metric: MetricSettings) -> Models:
    """Return the models to draw, full precision first."""
    models = {"full precision": confident_answers(before, metric)} if before is not None else {}
    return models | {"quantized" if is_quantized else "full precision": confident_answers(own, metric)}


def reliability_chart(
    task: str, models: Mapping[str, ConfidentAnswers], metric: MetricSettings, unit: str = "questions"
) -> Chart:
    """Return accuracy against confidence by bin, and the number of questions in each bin.

    Args:
        task: The title.
        models: The models; where bins are quantiles, they are the first model's.
        metric: Its bins, and the confidence level of the intervals (Wilson's, of a share).
        unit: What is counted.
    """
    bins = confidence_bins(next(iter(models.values())), metric)
    diagrams = {name: reliability_diagram(model.confidence, model.correct, bins) for name, model in models.items()}
    x, y = number_axis(CONFIDENCE, {"domain": [0, 1]}), number_axis("accuracy", {"domain": [0, 1]})
    series = [
        Series(name, _reliability_points(name, diagram, metric.confidence_level, unit), COLOURS[name], shape)
        for (name, diagram), shape in zip(diagrams.items(), ("square", "circle"), strict=False)
    ]
    unlabelled = x | {"title": None, "axis": {"labels": False}}  # the histogram below has the same axis
    calibrated = reference_line([(0, 0), (1, 1)], unlabelled, y)
    top = {"width": WIDTH, "height": 210, "layer": [calibrated, *lines(series, unlabelled, y)]}
    bottom = {"width": WIDTH, "height": 60, "layer": _bars(diagrams, bins, x, unit)}
    means = [
        f"{name} has a mean confidence of {model.confidence.mean():.3f} and an accuracy of {model.correct.mean():.3f}"
        for name, model in models.items()
    ]
    spec = titled(task, {"vconcat": [top, bottom], "spacing": 6})
    return Chart(spec, f"{task}: {'; '.join(means)}.", [_straight("perfectly calibrated", (0, 0), (1, 1)), *series], CONFIDENCE)


def _reliability_points(name: str, diagram: ReliabilityDiagram, level: float, unit: str) -> list[Row]:
    some = diagram.count > 0
    confidence, accuracy, count = diagram.confidence[some], diagram.accuracy[some], diagram.count[some]
    errors = np.sqrt(accuracy * (1 - accuracy) / count)
    ends = [score_interval(share, error, n, math.inf, level) for share, error, n in zip(accuracy, errors, count, strict=True)]
    hover = [
        f"{name}: confidence {mean:.3f}, accuracy {share:.3f} [{low:.3f}, {high:.3f}], {n:,} {unit}"
        for mean, share, (low, high), n in zip(confidence, accuracy, ends, count, strict=True)
    ]
    low, high = np.reshape(ends, (-1, 2)).T
    return points({"x": confidence, "y": accuracy, "low": low, "high": high}, hover)


def _bars(diagrams: Mapping[str, ReliabilityDiagram], bins: Bins, x: Spec, unit: str) -> list[Spec]:
    """Return a histogram's layers, in which models stand side by side in each bin."""
    starts, widths = bins.edges[:-1], np.diff(bins.edges)
    layers = []
    for k, (name, diagram) in enumerate(diagrams.items()):
        left = starts + widths * (0.1 + 0.8 * k / len(diagrams))
        hover = [
            f"{name}: {n:,} {unit} with a confidence of {low:.3f} to {high:.3f}"
            for n, low, high in zip(diagram.count, starts, bins.edges[1:], strict=True)
        ]
        rows = table({"x": left, "to": left + 0.8 * widths / len(diagrams), "y": map(int, diagram.count), "hover": hover})
        shown = {"field": "hover", "type": "nominal"}
        at = {"x": x | {"field": "x"}, "x2": {"field": "to"}, "y": number_axis(unit, tickCount=3) | {"field": "y"}}
        channels = at | {"y2": {"datum": 0}, "description": shown, "tooltip": shown}
        layers.append({"data": {"values": rows}, "mark": {"type": "rect", "color": COLOURS[name]}, "encoding": channels})
    return layers


def risk_coverage_chart(task: str, models: Models) -> Chart:
    """Return the error rate of what is answered against the share that is answered, the most confident questions first."""
    x, y = number_axis("share of questions answered", {"domain": [0, 1]}), number_axis("error rate", {"zero": True})
    series, halves = [], []
    for (name, model), dash in zip(models.items(), ([1, 0], [6, 3]), strict=False):
        coverage, risk = risk_coverage(model)
        some = np.unique(np.linspace(0, len(model) - 1, min(CURVE_POINTS, len(model))).astype(int))
        series.append(Series(name, points({"x": coverage[some], "y": risk[some]}, [""] * len(some)), COLOURS[name], None, dash))
        halves.append(f"{risk[(len(model) - 1) // 2]:.3f} ({name})")
    finding = f"{task}: if the more confident half of the questions is answered, the error rate is {', '.join(halves)}."
    return Chart(titled(task, {"width": WIDTH, "height": 200, "layer": lines(series, x, y)}), finding)


def deferral_chart(task: str, values: Mapping[str, Difference]) -> Chart:
    """Return accuracy against the share of questions, the least confident first, that full precision answers, and its cost."""
    answers = [values[f"deferral_accuracy_{name}"] for name in deferral.NAMES]
    accuracy, low, high = _numbers(answers)
    alone, full = _floats([values["accuracy"].quantized, values["accuracy"].baseline])
    share, costs = _floats([point.share for point in answers]), _floats([point.cost for point in answers])
    hover = [
        f"{part:.0%} answered in full precision: accuracy {number(point.value)} {interval(point)}, cost {cost:.2f}"
        for part, point, cost in zip(share, answers, costs, strict=True)
    ]
    x, y = number_axis(DEFERRED, {"domain": [0, 1]}), number_axis("accuracy")
    ends = {"x": [0, *share, 1], "y": [alone, *accuracy, full], "low": [None, *low, None], "high": [None, *high, None]}
    by_confidence = points(ends, ["quantized alone", *hover, "full precision alone"])
    as_costly = {"data": {"values": [{"x": 1 - float(costs[0] - share[0])}]}, "encoding": {"x": x | {"field": "x"}}}
    by_chance, deferred = (0, float(alone)), Series("the least confident", by_confidence, QUANTIZED)
    layers = [
        as_costly | {"mark": {"type": "rule", "color": FULL, "strokeDash": [2, 2]}},
        reference_line([by_chance, (1, float(full))], x, y),
        *lines([deferred], x, y),
    ]
    finding = (
        f"{task}: with the least confident {share[2]:.0%} of the questions answered in full precision the accuracy is "
        f"{accuracy[2]:.3f}; quantized alone {alone:.3f}, full precision alone {full:.3f}."
    )
    spec = titled(task, {"width": WIDTH, "height": 200, "layer": layers})
    return Chart(spec, finding, [_straight("as many at random", by_chance, (1, float(full))), deferred], DEFERRED)


def _straight(label: str, first: tuple[float, float], last: tuple[float, float]) -> Series:
    """Return a line that is compared with, by its name."""
    return Series(label, points({"x": [first[0], last[0]], "y": [first[1], last[1]]}, [label] * 2), INK, None)


def _numbers(measured: Sequence[Measurement]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return values and the lower and upper ends of their intervals; what does not exist is NaN."""
    ends = (
        [measurement.value for measurement in measured],
        [measurement.ci_low for measurement in measured],
        [measurement.ci_high for measurement in measured],
    )
    value, low, high = map(_floats, ends)
    return value, low, high


def _floats(numbers: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array(numbers, dtype=float)  # None becomes NaN
