"""The forest plot at the top of a page: each task's difference with its interval, against the margin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitsure.base.plain_text import without_controls
from bitsure.comparison import was_compared
from bitsure.comparison.verdict_labels import ROOT_OF_MEAN
from bitsure.metrics.metric_names import CALIBRATION, MACRO, PRIMARY
from bitsure.report.chart_layers import FAINT, FULL, QUANTIZED, number_axis
from bitsure.report.charts import INK, Chart, Row, Spec, table
from bitsure.report.tables import number
from bitsure.results import Comparison, Difference, Verdict
from bitsure.results.verdict import INFERIOR, NON_INFERIOR, UNDECIDED, Decision

WIDTH, ROW_HEIGHT = 222, 54  # of a panel; five stand side by side on a wide page, one on a phone
TEXT = 13  # pixels high, as the page's tables
EDGE = 9  # pixels between the outermost mark and the panel's edge
MARK, TICK = 15, 18  # a row's mark lies this far below its middle, under its name and number, and is as high
NO_MARGIN = "no margin"
OVER_THE_VOCABULARY = "over the vocabulary: below"  # a text's KL divergence has no common axis with that over choices
OUTCOMES = {  # outcome → colour, shape
    "within the margin": (FULL, "circle"),
    "undecided": ("#888888", "diamond"),
    "beyond the margin": (QUANTIZED, "triangle-up"),
    NO_MARGIN: (INK, "circle"),
}
BY_VERDICT: dict[Decision, str] = {
    NON_INFERIOR: "within the margin",
    UNDECIDED: "undecided",
    INFERIOR: "beyond the margin",
}


@dataclass(frozen=True)
class ForestMetric:
    """A column of the grid.

    Attributes:
        title: What it is called.
        worse: +1 where a larger value is worse, −1 where a smaller one is.
        mean: What its change over all tasks is called.
    """

    title: str
    worse: int
    mean: str = "mean over tasks"


@dataclass(frozen=True)
class ForestRow:
    """A row of a panel.

    Attributes:
        name: The task's name, or that of the mean over tasks.
        value: Quantized − full precision; None where the panel has no such number, and so for the ends.
        low: The lower end of the interval by which the outcome was decided.
        high: Its upper end.
        n: How many questions.
        outcome: One of OUTCOMES.
        counts: Whether the task takes part in the verdict on all tasks.
        is_mean: Whether it is of all tasks together.
        elsewhere: Where the number stands that is not in this panel, in place of its numbers.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    outcome: str
    counts: bool = True
    is_mean: bool = False
    elsewhere: str = ""

    @property
    def label(self) -> str:
        """The row's heading."""
        return self.name if self.counts else f"{self.name} (takes no part)"

    @property
    def numbers(self) -> str:
        """The value and its interval, or where they are."""
        if self.elsewhere:
            return self.elsewhere
        if self.low is None or self.high is None:
            return number(self.value, sign=True)
        return f"{number(self.value, sign=True)} [{number(self.low, sign=True)}, {number(self.high, sign=True)}]"


@dataclass(frozen=True)
class ForestPanel:
    """A metric's differences on the tasks.

    Attributes:
        metric: The metric.
        rows: A row a task, and the mean over tasks where there are several.
        margin: The difference at which the margin lies; None where the metric has none.
    """

    metric: ForestMetric
    rows: list[ForestRow]
    margin: float | None


METRICS = {
    "accuracy": ForestMetric("accuracy", -1),
    PRIMARY: ForestMetric("true-label probability", -1),
    "nll": ForestMetric("NLL, nats", 1),
    CALIBRATION: ForestMetric("calibration error, debiased", 1, ROOT_OF_MEAN),
    "kl_divergence": ForestMetric("KL divergence, nats", 1),
}


def forest_charts(comparison: Comparison, verdict: Verdict) -> dict[str, Chart]:
    """Return metric → a chart of its difference on each task, as in `forest_panels`."""
    return {name: _forest_chart(panel) for name, panel in forest_panels(comparison, verdict).items()}


def forest_panels(comparison: Comparison, verdict: Verdict) -> dict[str, ForestPanel]:
    """Return metric → its difference on each task, in the order of METRICS, without metrics that no task has."""
    panels = {}
    for name, metric in METRICS.items():
        rows = [
            _row(task, name, values, metric, verdict)
            for task, values in comparison.items()
            if task == MACRO or was_compared(values)
        ]
        if len(rows) == 2:
            rows = [row for row in rows if not row.is_mean]  # the mean over a single task
        if any(row.value is not None for row in rows):
            margins = [judged.margins[name].margin for judged in verdict.tasks.values() if name in judged.margins]
            panels[name] = ForestPanel(metric, rows, metric.worse * margins[0] if margins else None)
    return panels


def _row(task: str, name: str, values: Mapping[str, Difference], metric: ForestMetric, verdict: Verdict) -> ForestRow:
    """Return a task's row, with the interval that the verdict was made by where there is a margin."""
    is_mean, counts = task == MACRO, task not in verdict.excluded
    label = metric.mean if is_mean else without_controls(task)
    margins = verdict.margins if is_mean else verdict.tasks[task].margins
    if judged := margins.get(name):
        value, low, high = (_times(metric.worse, end) for end in (judged.loss, judged.ci_low, judged.ci_high))
        if metric.worse < 0:
            low, high = high, low
        return ForestRow(label, value, low, high, judged.n, BY_VERDICT[judged.verdict], counts, is_mean)
    of_a_text = name == "kl_divergence" and "same_top_token" in values  # over the vocabulary: another divergence than tasks'
    if of_a_text:
        return ForestRow(label, None, None, None, 0, NO_MARGIN, counts, is_mean, OVER_THE_VOCABULARY)
    if change := values.get(name):
        return ForestRow(label, change.value, change.ci_low, change.ci_high, change.n, NO_MARGIN, counts, is_mean)
    return ForestRow(label, None, None, None, 0, NO_MARGIN, counts, is_mean)


def _times(sign: int, loss: float | None) -> float | None:
    return None if loss is None else sign * loss + 0.0  # which makes −0 a 0


def forest_rows(panel: ForestPanel) -> list[Row]:
    """Return a panel as a table: a row a task, under the fields of `forest_layers` and `n`."""
    rows = panel.rows
    columns: dict[str, Sequence[object]] = {
        "task": [row.label for row in rows],
        "change": [row.value for row in rows],
        "ci_low": [row.low for row in rows],
        "ci_high": [row.high for row in rows],
        "margin": [panel.margin] * len(rows),
        "outcome": [row.outcome for row in rows],
        "n": [row.n for row in rows],
        "numbers": [row.numbers for row in rows],
        "hover": [f"{row.name}: {row.numbers}, {row.outcome}, n = {row.n:,}" for row in rows],
    }
    return table(columns)


def _forest_chart(panel: ForestPanel) -> Chart:
    metric, margin = panel.metric, panel.margin
    title = {"text": metric.title, "subtitle": "no margin" if margin is None else f"margin {margin:+g}"}
    size = {"width": WIDTH, "height": {"step": ROW_HEIGHT}}
    layers = forest_layers("task", () if margin is None else (math.copysign(1, margin),))
    spec = {"title": title, "data": {"values": forest_rows(panel)}, **size, "layer": layers}
    return Chart(spec, _finding(metric, panel.rows, margin))


def forest_layers(heading: str, losses: Sequence[float]) -> list[Spec]:
    """Return the layers of a forest plot of `forest_rows`: zero, the loss beyond the margin, then what stands in every row.

    Args:
        heading: The field that tells the rows apart and is their heading.
        losses: The signs that a margin may have: −1 where a loss is a change below 0, +1 where it is one above 0; none for no
            margins.
    """
    x = number_axis(None, {"zero": True, "nice": False, "padding": EDGE}, tickCount=4, grid=False, labelFontSize=11)
    x["axis"]["labelFlush"] = True
    y = {"field": heading, "type": "ordinal", "sort": None, "axis": None}
    layers = [_tick(x | {"datum": 0}, y, INK, FAINT)]
    for sign in losses:
        beyond = {"filter": {"field": "margin", "lte" if sign < 0 else "gte": 0}}
        shade = {"type": "rect", "color": QUANTIZED, "opacity": 0.15, "height": TICK, "yOffset": MARK}
        ends = {"x": x | {"field": "margin"}, "x2": {"value": 0 if sign < 0 else "width"}, "y": y}
        layers.append({"mark": shade, "transform": [beyond], "encoding": ends})
    if losses:
        layers.append(_tick(x | {"field": "margin"}, y, QUANTIZED, 1))
    return [*layers, *_marks(heading, x, y, bool(losses))]


def _marks(heading: str, x: Spec, y: Spec, has_legend: bool) -> list[Spec]:
    """Return the layers that stand in every row: interval, value, the task's name and the numbers."""
    colours, shapes = zip(*OUTCOMES.values(), strict=True)
    legend = {"orient": "bottom", "values": list(BY_VERDICT.values()), "labelFontSize": 12, "symbolSize": 50}
    legend["labelExpr"] = "split(datum.label, ' ')[0]"  # within, undecided, beyond: the title has the margin
    of_outcome = {"field": "outcome", "type": "nominal", "legend": legend if has_legend else None}
    colour = of_outcome | {"scale": {"domain": list(OUTCOMES), "range": colours}}
    shape = of_outcome | {"scale": {"domain": list(OUTCOMES), "range": shapes}}
    hover = {"field": "hover", "type": "nominal"}
    with_interval = [{"filter": {"field": end, "valid": True}} for end in ("ci_low", "ci_high")]
    ends = {"x": x | {"field": "ci_low"}, "x2": {"field": "ci_high"}, "y": y, "color": colour}
    value = {"x": x | {"field": "change"}, "y": y, "color": colour, "shape": shape, "description": hover, "tooltip": hover}
    return [
        {"mark": {"type": "rule", "strokeWidth": 2, "yOffset": MARK}, "transform": with_interval, "encoding": ends},
        {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 70, "yOffset": MARK}, "encoding": value},
        {"name": "task_names"} | _text(heading, y, dy=-20, bold=True),
        _text("numbers", y, dy=-4, bold=False),
    ]


def _text(field: str, y: Spec, dy: int, bold: bool) -> Spec:
    mark = {
        "type": "text",
        "align": "left",
        "dy": dy,
        "fontSize": TEXT,
        "fontWeight": "bold" if bold else "normal",
    }
    mark |= {"limit": WIDTH} if bold else {}  # of names alone: the room for numbers is known, and measuring texts takes long
    return {"mark": mark, "encoding": {"x": {"value": 0}, "y": y, "text": {"field": field, "type": "nominal"}}}


def _tick(x: Spec, y: Spec, colour: str, opacity: float) -> Spec:
    """Return a short vertical line in every row, which its mark is compared with."""
    mark = {"type": "tick", "orient": "vertical", "color": colour, "opacity": opacity, "size": TICK, "thickness": 1.5}
    return {"mark": mark | {"yOffset": MARK}, "encoding": {"x": x, "y": y}}


def _finding(metric: ForestMetric, rows: Sequence[ForestRow], margin: float | None) -> str:
    """Return how many tasks lie within the margin; without a margin, the changes' range."""
    tasks = [row for row in rows if not row.is_mean and row.value is not None]
    mean = "".join(f" {metric.mean.capitalize()}: {row.numbers}." for row in rows if row.is_mean)
    if margin is not None:
        outcomes = [row.outcome for row in tasks]
        counts = ", ".join(f"{outcomes.count(what)} {what}" for what in BY_VERDICT.values() if what in outcomes)
        return f"{metric.title}, margin {margin:+g}: {counts}.{mean}"
    least, most = (end(tasks, key=lambda row: row.value or 0.0) for end in (min, max))
    text = f"{metric.title}: {number(least.value, sign=True)} ({least.name})"
    return (text if least is most else f"{text} to {number(most.value, sign=True)} ({most.name})") + f".{mean}"
