"""Metrics against what a model costs (size, bits, time, speed), with the Pareto front."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.report.chart_layers import FAINT, number_axis
from bitsure.report.charts import INK, Chart, Spec, table
from bitsure.report.tables import number
from bitsure.sweep.report.line_panels import LinePoint, line_layers, panel, point_keys, with_interval
from bitsure.sweep.report.picture import LegendKey, Picture
from bitsure.sweep.report.study_row import StudyRow, grouped, over_tasks
from bitsure.sweep.report.sweep_statistics import STUDY

HIGHER_IS_BETTER = {"accuracy": True, "true_label_prob": True, "expected_calibration_error": False}  # metrics with a front


@dataclass(frozen=True)
class ParetoAxis:
    """A cost that metrics are drawn against."""

    column: str  # of `StudyRow`
    unit: float
    label: str
    unit_name: str
    picture: str
    title: str
    caption: str
    more_is_better: bool = False

    def cost(self, row: StudyRow) -> float:
        """Return the column of a row that has one, in its own unit."""
        return float(getattr(row, self.column))

    def place(self, row: StudyRow) -> float:
        """Return where a row lies on the axis."""
        return self.cost(row) / self.unit


ON_DISK = ParetoAxis(
    "size_bytes",
    1e6,
    "size on disk, MB",
    "MB",
    "pareto",
    "What a megabyte buys",
    "Size on disk is that of the model as it would be shipped: quantized weights at their bits per weight, scales counted, "
    "the rest as in full precision.",
)
CODED = ParetoAxis(
    "bits_per_weight_coded",
    1,
    "bits per weight after coding",
    "bits",
    "coded",
    "Is the cheapest model to load also the least sure?",
    "Bits per weight after coding are those of the better of zstd and an entropy coder, scales and zero points counted. A "
    "model that stays as confident but is less often right has a larger calibration error.",
)
QUANTIZING = ParetoAxis(
    "quantizing_seconds",
    1,
    "seconds of quantizing",
    "s",
    "quantizing_time",
    "What a second of quantizing buys",
    "Seconds are the wall time of quantizing on the machine that did it, without loading and measuring.",
)
SPEED = ParetoAxis(
    "packed_tokens_per_second",
    1,
    "tokens per second of scoring",
    "tokens/s",
    "scoring_speed",
    "What speed costs",
    "Tokens per second are those of scoring with packed kernels (scoring.dequantize=false), padding counted.",
    more_is_better=True,
)
PARETO_AXES = (ON_DISK, CODED, QUANTIZING, SPEED)
MOST_QUESTIONS = 4  # sets of questions that have panels


def pareto(rows: list[StudyRow], axis: ParetoAxis) -> Picture | None:
    """Return accuracy, true-label probability and calibration error against a cost; None for fewer than two models.

    Runs that were asked different questions have panels, and fronts, of their own.
    """
    rows = over_tasks([row for row in rows if row.metric in HIGHER_IS_BETTER and getattr(row, axis.column)])
    by_panel = grouped(rows, lambda row: (row.questions, row.metric))
    runs = grouped(rows, lambda row: row.questions)
    questions = [asked for asked, members in runs.items() if len({(row.model, row.label) for row in members}) > 1]
    questions = sorted(questions, key=lambda asked: -len(runs[asked]))[:MOST_QUESTIONS]
    if not questions:
        return None
    keys = point_keys(rows)
    fronts = {key: pareto_front(members, axis) for key, members in by_panel.items()}
    panels = []
    for asked in questions:
        for metric in HIGHER_IS_BETTER:
            if members := by_panel.get((asked, metric)):
                front, subtitle = fronts[asked, metric], asked if len(questions) > 1 else ""
                drawn = panel(STUDY[metric], _layers(members, front, axis, keys), subtitle=subtitle)
                name = ", ".join(filter(None, (STUDY[metric].capitalize(), subtitle)))
                panels.append(Chart(drawn, f"{name}: {_finding(front, axis)}."))
    cheaper = "faster" if axis.more_is_better else "cheaper"
    caption = (
        f"{axis.caption} The grey line is the front: nothing {cheaper} is as good. Intervals hold for single points; "
        "neighbours whose intervals overlap may swap places."
    )
    if len(questions) < len(runs):
        caption += " Runs with other questions are in the CSV."
    on_front = {id(row) for front in fronts.values() for row in front}
    flags = [id(row) in on_front for row in rows]
    return Picture(axis.picture, axis.title, caption, panels[0].finding, panels, keys, rows, flags, columns=3)


def _layers(rows: list[StudyRow], front: list[StudyRow], axis: ParetoAxis, keys: list[LegendKey]) -> list[Spec]:
    """Return the layers of one panel: the front, then points with intervals."""
    places = [axis.place(row) for row in rows]
    domain = [0.93 * min(places), 1.07 * max(places)]
    x = number_axis(axis.label, {"type": "log", "domain": domain, "nice": False}, tickCount=4, grid=False)
    y = number_axis(None)
    best = sorted(front, key=axis.cost)
    step = {"type": "line", "interpolate": "step-before" if axis.more_is_better else "step-after", "color": INK}
    steps = table({"x": [axis.place(row) for row in best], "y": [row.value for row in best]})
    on_front: Spec = {
        "data": {"values": steps},
        "mark": step | {"opacity": FAINT, "strokeWidth": 3},
        "encoding": {"x": x | {"field": "x"}, "y": y | {"field": "y"}},
    }
    points = [
        LinePoint(row.quantizer_label, row.size_label, place, row.value, row.ci_low, row.ci_high, _hover(row, axis))
        for row, place in zip(rows, places, strict=True)
    ]
    return [on_front, *line_layers(points, keys, x, y, joined=False)]


def _hover(row: StudyRow, axis: ParetoAxis) -> str:
    value = with_interval(row.value, row.ci_low, row.ci_high)
    return f"{row.quantizer_label}: {row.model}, {STUDY[row.metric]} {value}, {axis.place(row):.4g} {axis.unit_name}"


def _finding(front: list[StudyRow], axis: ParetoAxis) -> str:
    """Return what lies on the front, the cheapest first."""
    some = [
        f"{row.quantizer_label} of {row.model} ({axis.place(row):.3g} {axis.unit_name}, {number(row.value)})"
        for row in front[:5]
    ]
    more = f" and {len(front) - 5} more" if len(front) > 5 else ""
    return f"on the front lie {', '.join(some)}{more}"


def pareto_front(rows: list[StudyRow], axis: ParetoAxis) -> list[StudyRow]:
    """Return the Pareto front of one metric: the rows that no other row beats or equals at the same or a lower cost."""
    cost_sign = -1 if axis.more_is_better else 1
    value_sign = 1 if HIGHER_IS_BETTER[rows[0].metric] else -1
    front: list[StudyRow] = []
    for row in sorted(rows, key=lambda row: (cost_sign * axis.cost(row), -value_sign * row.value)):
        if not front or value_sign * row.value > value_sign * front[-1].value:
            front.append(row)
    return front
