"""Pictures of records, in colours that the colour-blind can tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bitsure.comparison import noise_control as control
from bitsure.config.schema import MetricSettings
from bitsure.metrics import deferral
from bitsure.metrics.calibration import Bins, reliability_diagram
from bitsure.metrics.confidence import Questions, questions
from bitsure.metrics.measure import MACRO, bins_of
from bitsure.metrics.question_pairs import STRATA
from bitsure.metrics.ranking import risk_coverage
from bitsure.records.record import Records, by_task, has_choices
from bitsure.report.drawing import FULL, QUANTIZED, Sheets, file_name, plain, save
from bitsure.results import Comparison, Difference

POINTS = 400  # of a curve
KINDS = ("reliability", "risk_coverage", "shift", "deferral")
COLUMNS = ["task", "choices", "gold", "choice_logprobs", "choice_tokens"]  # of records that are drawn
Pictures = dict[str, dict[str, Path]]  # kind → task → PNG


def of_records(records: Records, baseline: Records | None, metric: MetricSettings, directory: Path) -> Pictures:
    """Draw reliability and risk_coverage into `directory`, of the tasks with choices. Of the records COLUMNS are read."""
    directory.mkdir(parents=True, exist_ok=True)
    before, sheets = by_task(baseline) if baseline is not None else {}, Sheets()
    paths: Pictures = {"reliability": {}, "risk_coverage": {}}
    for task, found in by_task(records).items():
        if not has_choices(found):
            continue
        asked = questions(found, metric.normalization)
        series = {"quantized": (asked, QUANTIZED)} if baseline is not None else {"full precision": (asked, FULL)}
        if task in before:
            series = {"full precision": (questions(before[task], metric.normalization), FULL)} | series
        bins = bins_of(next(iter(series.values()))[0], metric)
        paths["reliability"][task] = save(_reliability(sheets, task, series, bins), _path(directory, "reliability", task))
        paths["risk_coverage"][task] = save(_risk_coverage(sheets, task, series), _path(directory, "risk_coverage", task))
    return paths


def of_comparison(comparison: Comparison, directory: Path) -> Pictures:
    """Draw shift and deferral into `directory`, of the tasks with choices that were compared."""
    directory.mkdir(parents=True, exist_ok=True)
    sheets, paths = Sheets(), {"shift": {}, "deferral": {}}
    for task, values in comparison.items():
        if task == MACRO or f"deferral_accuracy_{deferral.NAMES[0]}" not in values:
            continue
        paths["shift"][task] = save(_shift(sheets, task, values), _path(directory, "shift", task))
        paths["deferral"][task] = save(_deferral(sheets, task, values), _path(directory, "deferral", task))
    return paths


def _path(directory: Path, kind: str, task: str) -> Path:
    return directory / f"{kind}_{file_name(task)}.png"


def _reliability(sheets: Sheets, task: str, series: dict[str, tuple[Questions, str]], edges: Bins):
    """Accuracy against confidence by bin, and how many questions each bin has; the bins of the calibration error."""
    margins = {"left": 0.2, "right": 0.97, "bottom": 0.09, "top": 0.94, "hspace": 0.08}
    figure, (top, bottom) = sheets.clean("reliability", 2, 1, (4.4, 5.2), margins, height_ratios=[3, 1], sharex=True)
    top.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="as right as sure")
    middles, widths = (edges.edges[:-1] + edges.edges[1:]) / 2, np.diff(edges.edges)
    for (label, (asked, colour)), marker, shift in zip(series.items(), "os", (-1, 1), strict=False):
        bins = reliability_diagram(asked.confidence, asked.correct, edges)
        some = bins.count > 0
        half = 1.96 * np.sqrt(bins.accuracy * (1 - bins.accuracy) / np.maximum(bins.count, 1))[some]
        x, y = bins.confidence[some], bins.accuracy[some]
        top.errorbar(x, y, half, color=colour, marker=marker, markersize=4, linewidth=1.3, elinewidth=0.7, label=label)
        bottom.bar(middles + shift * 0.2 * widths, bins.count, 0.4 * widths, color=colour)
    top.set(ylabel="share right", ylim=(-0.02, 1.02))
    top.set_title(plain(task), y=1)
    bottom.set(xlabel="confidence", ylabel="questions", xlim=(0, 1))
    top.legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def _risk_coverage(sheets: Sheets, task: str, series: dict[str, tuple[Questions, str]]):
    """The error rate of what is answered, the surest questions first."""
    margins = {"left": 0.16, "right": 0.97, "bottom": 0.15, "top": 0.91}
    figure, axes = sheets.clean("risk_coverage", 1, 1, (4.4, 3.2), margins)
    for (label, (asked, colour)), style in zip(series.items(), ("-", "--"), strict=False):
        coverage, risk = risk_coverage(asked)
        some = np.unique(np.linspace(0, len(asked) - 1, min(POINTS, len(asked))).astype(int))
        axes.plot(coverage[some], risk[some], color=colour, linestyle=style, linewidth=1.5, label=label)
    axes.set(xlabel="share of questions answered", ylabel="error rate", xlim=(0, 1), ylim=(0, None))
    axes.set_title(plain(task), y=1)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def _shift(sheets: Sheets, task: str, values: dict[str, Difference]):
    """Mean (harm) and standard deviation (instability) of the right answer's change in log-odds, by full-model certainty."""
    margins = {"left": 0.13, "right": 0.98, "bottom": 0.15, "top": 0.83, "wspace": 0.25}
    figure, (left, right) = sheets.clean("shift", 1, 2, (6.4, 3.2), margins)
    places = np.arange(1, STRATA + 1)
    for axes, name, colour in ((left, "harm", QUANTIZED), (right, "instability", "#009E73")):
        found = [values[f"{name}_stratum_{k}"] for k in places]
        middle = np.array([one.value if one.value is not None else np.nan for one in found])
        ends = np.array([[one.ci_low, one.ci_high] for one in found], dtype=float)
        half = np.abs(ends.T - middle)
        axes.axhline(0, color="0.6", linewidth=1, linestyle="--")
        if noise := [values[key] for k in places if (key := f"{control.PREFIX}{name}_stratum_{k}") in values]:
            bounds = np.array([[one.ci_low, one.ci_high] for one in noise], dtype=float).T
            axes.fill_between(places, *bounds, color="0.8", linewidth=0, label="noise control")
        axes.errorbar(places, middle, half, color=colour, marker="o", markersize=4, linewidth=1.3, elinewidth=0.8, capsize=2)
        axes.set(xticks=places, xlabel="certainty before: unsure → sure")
        axes.set_title(name, y=1)
    left.set_ylabel("change in log-odds, nats")
    figure.suptitle(plain(task), fontsize=10)
    return figure


def _deferral(sheets: Sheets, task: str, values: dict[str, Difference]):
    """Accuracy by the share of questions, the least sure ones, that the full model answers; and by what that costs."""
    margins = {"left": 0.16, "right": 0.97, "bottom": 0.14, "top": 0.78}
    figure, axes = sheets.clean("deferral", 1, 1, (4.4, 3.4), margins)
    points = [values[f"deferral_accuracy_{name}"] for name in deferral.NAMES]
    ends = [values["accuracy"].quantized, values["accuracy"].baseline]
    share = np.array([one.share for one in points])
    accuracy = np.array([one.value for one in points])
    half = np.abs(np.array([[one.ci_low, one.ci_high] for one in points]).T - accuracy)
    axes.plot([0, 1], ends, color="0.6", linewidth=1, linestyle="--", label="as many at random")
    axes.plot([0, *share, 1], [ends[0], *accuracy, ends[1]], color=QUANTIZED, linewidth=1.3, label="the least sure")
    axes.errorbar(share, accuracy, half, color=QUANTIZED, marker="o", markersize=4, linestyle="none", elinewidth=0.7)
    cost = points[0].cost - points[0].share
    axes.axvline(1 - cost, color=FULL, linewidth=1, linestyle=":", label="costs as much as full precision")
    above = axes.secondary_xaxis("top", functions=(lambda x: x + cost, lambda x: x - cost))
    above.set_xlabel("cost of an answer, full precision = 1", fontsize=8)
    axes.set(xlabel="share answered in full precision", ylabel="accuracy", xlim=(0, 1))
    axes.set_title(plain(task), y=1.17)
    axes.legend(loc="best", fontsize=8, frameon=False)
    return figure
