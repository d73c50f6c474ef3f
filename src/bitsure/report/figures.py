"""Draw a run's figures, one of each kind for each task with choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitsure.base.files import make_folder
from bitsure.config.schema import MetricSettings
from bitsure.metrics import deferral
from bitsure.metrics.bins import reliability_diagram
from bitsure.metrics.choice_metrics import confidence_bins
from bitsure.metrics.metric_names import MACRO, NOISE_CONTROL
from bitsure.metrics.point_estimate import score_interval
from bitsure.metrics.question_pairs import STRATA
from bitsure.metrics.questions import QuestionSet, question_set
from bitsure.metrics.ranking import risk_coverage
from bitsure.records.record import Records, by_task, has_choices
from bitsure.report.drawing import FULL, QUANTIZED, ReusedFigures, draw_intervals, file_name, new_figure, plain, save
from bitsure.results import Comparison, Difference, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_POINTS = 400
KINDS = ("reliability", "risk_coverage", "shift", "deferral")
Pictures = dict[str, dict[str, Path]]  # kind → task → PNG
Series = dict[str, tuple[QuestionSet, str]]  # model → its questions, its colour


def draw(
    records: Records, baseline: Records | None, comparison: Comparison | None, metric: MetricSettings, directory: Path
) -> Pictures:
    """Draw every figure of a run.

    Args:
        records: The run's records.
        baseline: The same questions in full precision, if there is a comparison.
        comparison: What `compare` made of the two.
        metric: The settings that the reliability diagrams follow.
        directory: Where the PNG files go; it is made if need be.

    Returns:
        Kind (of KINDS) → task → PNG file.
    """
    make_folder(directory)
    pictures: Pictures = {kind: {} for kind in KINDS}
    reused = ReusedFigures()

    def add(kind: str, task: str, figure: Figure) -> None:
        pictures[kind][task] = save(figure, directory / f"{kind}_{file_name(task)}.png")

    before = by_task(baseline) if baseline is not None else {}
    for task, own in by_task(records).items():
        if has_choices(own):
            series = _series(own, before.get(task), baseline is not None, metric.normalization)
            add("reliability", task, reliability_figure(reused, task, series, metric))
            add("risk_coverage", task, risk_coverage_figure(reused, task, series))
    for task, values in (comparison or {}).items():
        if task != MACRO and f"deferral_accuracy_{deferral.NAMES[0]}" in values:
            add("shift", task, shift_figure(reused, task, values))
            add("deferral", task, deferral_figure(reused, task, values))
    return pictures


def _series(own: pa.Table, before: pa.Table | None, is_quantized: bool, normalization: str) -> Series:
    """Return the models to draw, full precision first."""
    series = {"full precision": (question_set(before, normalization), FULL)} if before is not None else {}
    name, colour = ("quantized", QUANTIZED) if is_quantized else ("full precision", FULL)
    return series | {name: (question_set(own, normalization), colour)}


def _axes(rows: int, columns: int, size: tuple[float, float], margins: dict[str, float], **settings: Any) -> Callable[[], Any]:
    return lambda: new_figure(rows, columns, *size, margins, **settings)


def reliability_figure(reused: ReusedFigures, task: str, series: Series, metric: MetricSettings) -> Figure:
    """Draw accuracy against confidence by bin, and the number of questions in each bin.

    Args:
        reused: Figures that were drawn on before.
        task: The title.
        series: The models; where bins are quantiles, they are the first model's.
        metric: Its bins, and the confidence level of the intervals (Wilson's, of a share).
    """
    margins = {"left": 0.2, "right": 0.97, "bottom": 0.09, "top": 0.94, "hspace": 0.08}
    create = _axes(2, 1, (4.4, 5.2), margins, height_ratios=[3, 1], sharex=True)
    figure, (top, bottom) = reused.blank("reliability", create)
    top.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect calibration")
    bins = confidence_bins(next(iter(series.values()))[0], metric)
    middles, widths = (bins.edges[:-1] + bins.edges[1:]) / 2, np.diff(bins.edges)
    for (label, (answers, colour)), marker, side in zip(series.items(), "os", (-1, 1), strict=False):
        diagram = reliability_diagram(answers.confidence, answers.correct, bins)
        some = diagram.count > 0
        confidence, accuracy, count = diagram.confidence[some], diagram.accuracy[some], diagram.count[some]
        errors = np.sqrt(accuracy * (1 - accuracy) / count)
        intervals = [
            score_interval(share, error, n, math.inf, metric.confidence_level)
            for share, error, n in zip(accuracy, errors, count, strict=True)
        ]
        top.plot(confidence, accuracy, color=colour, marker=marker, markersize=4, linewidth=1.3, label=label)
        low, high = np.reshape(intervals, (-1, 2)).T
        draw_intervals(top, confidence, low, high, colour)
        bottom.bar(middles + side * 0.2 * widths, diagram.count, 0.4 * widths, color=colour)
    top.set(ylabel="accuracy", ylim=(-0.02, 1.02))
    top.set_title(plain(task), y=1)
    bottom.set(xlabel="confidence", ylabel="questions", xlim=(0, 1))
    top.legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def risk_coverage_figure(reused: ReusedFigures, task: str, series: Series) -> Figure:
    """Draw the error rate of what is answered against the share that is answered, the most confident questions first."""
    margins = {"left": 0.16, "right": 0.97, "bottom": 0.15, "top": 0.91}
    figure, axes = reused.blank("risk_coverage", _axes(1, 1, (4.4, 3.2), margins))
    for (label, (answers, colour)), style in zip(series.items(), ("-", "--"), strict=False):
        coverage, risk = risk_coverage(answers)
        some = np.unique(np.linspace(0, len(answers) - 1, min(CURVE_POINTS, len(answers))).astype(int))
        axes.plot(coverage[some], risk[some], color=colour, linestyle=style, linewidth=1.5, label=label)
    axes.set(xlabel="share of questions answered", ylabel="error rate", xlim=(0, 1), ylim=(0, None))
    axes.set_title(plain(task), y=1)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def shift_figure(reused: ReusedFigures, task: str, values: Mapping[str, Difference]) -> Figure:
    """Draw how the log-odds of the right answer change, by the certainty of full precision.

    Left the mean change (harm), right its standard deviation (instability), each over a fifth of the questions.
    """
    margins = {"left": 0.13, "right": 0.98, "bottom": 0.15, "top": 0.83, "wspace": 0.25}
    figure, (left, right) = reused.blank("shift", _axes(1, 2, (6.4, 3.2), margins))
    _draw_strata(left, "harm", values, QUANTIZED)
    _draw_strata(right, "instability", values, "#009E73")
    left.set_ylabel("change in log-odds, nats")
    figure.suptitle(plain(task), fontsize=10)
    return figure


def _draw_strata(axes: Axes, name: str, values: Mapping[str, Difference], colour: str) -> None:
    places = np.arange(1, STRATA + 1)
    middle, low, high = _numbers([values[f"{name}_stratum_{k}"] for k in places])
    axes.axhline(0, color="0.6", linewidth=1, linestyle="--")
    names = [f"{NOISE_CONTROL}{name}_stratum_{k}" for k in places]
    if all(key in values for key in names):
        _, least, most = _numbers([values[key] for key in names])
        axes.fill_between(places, least, most, color="0.8", linewidth=0, label="noise control")
    axes.plot(places, middle, color=colour, marker="o", markersize=4, linewidth=1.3)
    draw_intervals(axes, places, low, high, colour)
    axes.set(xticks=places, xlabel="certainty before: low → high")
    axes.set_title(name, y=1)


def deferral_figure(reused: ReusedFigures, task: str, values: Mapping[str, Difference]) -> Figure:
    """Draw accuracy against the share of questions, the least confident first, that full precision answers, and its cost."""
    margins = {"left": 0.16, "right": 0.97, "bottom": 0.14, "top": 0.78}
    figure, axes = reused.blank("deferral", _axes(1, 1, (4.4, 3.4), margins))
    points = [values[f"deferral_accuracy_{name}"] for name in deferral.NAMES]
    accuracy, low, high = _numbers(points)
    ends = _floats([values["accuracy"].quantized, values["accuracy"].baseline])
    share, costs = _floats([point.share for point in points]), _floats([point.cost for point in points])
    axes.plot([0, 1], ends, color="0.6", linewidth=1, linestyle="--", label="as many at random")
    axes.plot([0, *share, 1], [ends[0], *accuracy, ends[1]], color=QUANTIZED, linewidth=1.3, label="the least confident")
    axes.plot(share, accuracy, color=QUANTIZED, marker="o", markersize=4, linestyle="none")
    draw_intervals(axes, share, low, high, QUANTIZED)
    cost = float(costs[0] - share[0])
    axes.axvline(1 - cost, color=FULL, linewidth=1, linestyle=":", label="costs as much as full precision")
    above = axes.secondary_xaxis("top", functions=(lambda x: x + cost, lambda x: x - cost))
    above.set_xlabel("cost of an answer, full precision = 1", fontsize=8)
    axes.set(xlabel="share answered in full precision", ylabel="accuracy", xlim=(0, 1))
    axes.set_title(plain(task), y=1.17)
    axes.legend(loc="best", fontsize=8, frameon=False)
    return figure


def _numbers(measured: Sequence[Measurement]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return values and the lower and upper ends of their intervals; what does not exist is NaN."""
    ends = (
        [number.value for number in measured],
        [number.ci_low for number in measured],
        [number.ci_high for number in measured],
    )
    value, low, high = map(_floats, ends)
    return value, low, high


def _floats(numbers: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array(numbers, dtype=float)  # None becomes NaN
