"""The forest plot at the top of a page: each task's difference with its interval, against the margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitsure.base.plain_text import without_controls
from bitsure.comparison import was_compared
from bitsure.metrics.metric_names import ECE, MACRO, PRIMARY
from bitsure.report.chart_layers import FAINT, FULL, QUANTIZED, number_axis
from bitsure.report.charts import INK, Chart, Row, Spec, table
from bitsure.report.tables import interval, number
from bitsure.results import Comparison, Difference, Verdict
from bitsure.results.verdict import MarginVerdict

WIDTH, ROW_HEIGHT = 210, 48  # of a panel; five stand side by side on a wide page, one on a phone
MARK, TICK = 12, 18  # a row's mark lies this far below its middle, under its name and number, and is as high
NO_MARGIN = "no margin"
OUTCOMES = {  # outcome → colour, shape
    "within the margin": (FULL, "circle"),
    "undecided": ("#888888", "diamond"),
    "beyond the margin": (QUANTIZED, "triangle-up"),
    NO_MARGIN: (INK, "circle"),
}
BY_VERDICT = {"non-inferior": "within the margin", "undecided": "undecided", "inferior": "beyond the margin"}


@dataclass(frozen=True)
class ForestMetric:
    """A column of the grid.

    Attributes:
        title: What it is called.
        worse: +1 where a larger value is worse, −1 where a smaller one is.
    """

    title: str
    worse: int


METRICS = {
    "accuracy": ForestMetric("accuracy", -1),
    PRIMARY: ForestMetric("true-label probability", -1),
    "nll": ForestMetric("NLL, nats", 1),
    ECE: ForestMetric("calibration error", 1),
    "kl_divergence": ForestMetric("KL divergence, nats", 1),
}


def forest_charts(comparison: Comparison, verdict: Verdict) -> dict[str, Chart]:
    """Return metric → a chart of its difference on each task, in the order of METRICS, without metrics that no task has."""
    rows = {task: values for task, values in comparison.items() if task == MACRO or was_compared(values)}
    if len(rows) == 2:
        rows.pop(MACRO, None)  # the mean over a single task
    return {
        name: _forest_chart(metric, {task: values.get(name) for task, values in rows.items()}, _margins(name, verdict))
        for name, metric in METRICS.items()
        if any(name in values for values in rows.values())
    }


def _margins(name: str, verdict: Verdict) -> dict[str, MarginVerdict]:
    return {task: judged.margins[name] for task, judged in verdict.tasks.items() if name in judged.margins}


def _forest_chart(metric: ForestMetric, changes: Mapping[str, Difference | None], judged: Mapping[str, MarginVerdict]) -> Chart:
    """Return one panel: a row a task.

    Args:
        metric: The panel's metric.
        changes: Task → difference; None where the task has none.
        judged: Task → how it was held against the margin; empty where the metric has no margin.
    """
    margin = next((metric.worse * one.margin for one in judged.values()), None)
    outcomes = {task: BY_VERDICT[judged[task].verdict] if task in judged else NO_MARGIN for task in changes}
    ends = [end for change in changes.values() if change for end in (change.value, change.ci_low, change.ci_high)]
    known = [0.0, *(end for end in ends if end is not None), *([] if margin is None else [1.3 * margin])]
    low, high = min(known), max(known)
    room = 0.04 * (high - low) or 1.0
    x = number_axis(None, {"domain": [low - room, high + room], "nice": False}, tickCount=4, grid=False)
    y = {"field": "row", "type": "ordinal", "axis": None}
    rows = _rows(changes, outcomes)
    layers = [_tick(x | {"datum": 0}, y, INK, FAINT)]
    if margin is not None:
        edge = x["scale"]["domain"][0 if margin < 0 else 1]
        shade = {"type": "rect", "color": QUANTIZED, "opacity": 0.15, "height": TICK, "yOffset": MARK}
        layers.append({"mark": shade, "encoding": {"x": x | {"datum": margin}, "x2": {"datum": edge}, "y": y}})
        layers.append(_tick(x | {"datum": margin}, y, QUANTIZED, 1))
    layers += _marks(x, y, margin is not None)
    title = {"text": metric.title, "subtitle": "no margin" if margin is None else f"margin {margin:+g}"}
    spec = {"title": title, "data": {"values": rows}, "width": WIDTH, "height": {"step": ROW_HEIGHT}, "layer": layers}
    return Chart(spec, _finding(metric, changes, outcomes, margin))


def _rows(changes: Mapping[str, Difference | None], outcomes: Mapping[str, str]) -> list[Row]:
    names = ["mean over tasks" if task == MACRO else without_controls(task) for task in changes]
    values = list(changes.values())
    numbers = [
        f"{number(change.value, sign=True)} {interval(change, sign=True)}".strip() if change else "–" for change in values
    ]
    columns = {
        "row": range(len(names)),
        "task": names,
        "outcome": outcomes.values(),
        "numbers": numbers,
        "value": [change.value if change else None for change in values],
        "low": [change.ci_low if change else None for change in values],
        "high": [change.ci_high if change else None for change in values],
        "hover": [
            f"{name}: {text}, {outcome}" + (f", n = {change.n:,}" if change else "")
            for name, text, outcome, change in zip(names, numbers, outcomes.values(), values, strict=True)
        ],
    }
    return table(columns)


def _change(change: Difference | None) -> str:
    return f"{number(change.value, sign=True)} {interval(change, sign=True)}".strip() if change else "–"


def _marks(x: Spec, y: Spec, has_legend: bool) -> list[Spec]:
    """Return the layers that stand in every row: interval, value, the task's name and the numbers."""
    colours, shapes = zip(*OUTCOMES.values(), strict=True)
    legend = {"orient": "bottom", "values": list(BY_VERDICT.values()), "columns": 3, "labelFontSize": 9, "symbolSize": 40}
    of_outcome = {"field": "outcome", "type": "nominal", "legend": legend if has_legend else None}
    colour = of_outcome | {"scale": {"domain": list(OUTCOMES), "range": colours}}
    shape = of_outcome | {"scale": {"domain": list(OUTCOMES), "range": shapes}}
    hover = {"field": "hover", "type": "nominal"}
    with_interval = [{"filter": {"field": end, "valid": True}} for end in ("low", "high")]
    ends = {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y, "color": colour}
    value = {"x": x | {"field": "value"}, "y": y, "color": colour, "shape": shape, "description": hover, "tooltip": hover}
    return [
        {"mark": {"type": "rule", "strokeWidth": 2, "yOffset": MARK}, "transform": with_interval, "encoding": ends},
        {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 70, "yOffset": MARK}, "encoding": value},
        {"name": "task_names"} | _text("task", y, dy=-18, bold=True),
        _text("numbers", y, dy=-5, bold=False),
    ]


def _text(field: str, y: Spec, dy: int, bold: bool) -> Spec:
    mark = {
        "type": "text",
        "align": "left",
        "dy": dy,
        "fontSize": 11,
        "limit": WIDTH,
        "fontWeight": "bold" if bold else "normal",
    }
    return {"mark": mark, "encoding": {"x": {"value": 0}, "y": y, "text": {"field": field, "type": "nominal"}}}


def _tick(x: Spec, y: Spec, colour: str, opacity: float) -> Spec:
    """Return a short vertical line in every row, which its mark is compared with."""
    mark = {"type": "tick", "orient": "vertical", "color": colour, "opacity": opacity, "size": TICK, "thickness": 1.5}
    return {"mark": mark | {"yOffset": MARK}, "encoding": {"x": x, "y": y}}


def _finding(
    metric: ForestMetric, changes: Mapping[str, Difference | None], outcomes: Mapping[str, str], margin: float | None
) -> str:
    """Return how many tasks lie within the margin; without a margin, the changes' range."""
    if margin is None:
        values = {
            task: change.value for task, change in changes.items() if change and change.value is not None and task != MACRO
        }
        least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
        text = f"{metric.title}: {number(values[least], sign=True)} ({least})"
        return f"{text}." if least == most else f"{text} to {number(values[most], sign=True)} ({most})."
    counts = {outcome: [*outcomes.values()].count(outcome) for outcome in BY_VERDICT.values()}
    return f"{metric.title}, margin {margin:+g}: " + ", ".join(f"{n} {what}" for what, n in counts.items() if n) + "."
