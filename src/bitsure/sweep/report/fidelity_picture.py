"""What a bit and a byte buy of a text's next-token probabilities: KL divergence, same top token and perplexity ratio."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.report.chart_layers import number_axis
from bitsure.report.charts import Chart, Spec
from bitsure.sweep.report.line_panels import LinePoint, line_layers, panel, point_keys
from bitsure.sweep.report.picture import LegendKey, Picture
from bitsure.sweep.report.study_row import StudyRow, grouped

FIDELITY = {
    "kl_divergence": "KL divergence, nats",
    "same_top_token": "same top token",
    "perplexity_ratio": "perplexity ratio",
}


@dataclass(frozen=True)
class SizeAxis:
    """A size of a model that fidelity is drawn against."""

    column: str  # of `StudyRow`
    unit: float
    label: str
    title: str

    @property
    def picture(self) -> str:
        """The picture's name."""
        return f"fidelity_{self.column}"

    def place(self, row: StudyRow) -> float:
        """Return where a row lies on the axis."""
        return float(getattr(row, self.column)) / self.unit


FIDELITY_AXES = (
    SizeAxis("bits_per_weight", 1, "bits per weight", "What a bit buys of next-token probabilities"),
    SizeAxis("size_bytes", 1e6, "size on disk, MB", "What a megabyte buys of next-token probabilities"),
)


def without_choices_fidelity(rows: list[StudyRow]) -> list[StudyRow]:
    """Return rows without FIDELITY of tasks with choices, whose divergence is that of the choices' probabilities."""
    texts = {row.task for row in rows if row.metric == "same_top_token"}
    return [row for row in rows if row.metric not in FIDELITY or row.task in texts]


def fidelity_picture(rows: list[StudyRow], axis: SizeAxis) -> Picture | None:
    """Return the fidelity of quantized models on texts against a size; None for fewer than two of them.

    Args:
        rows: Rows of models, as `without_choices_fidelity` returns them.
        axis: The size.
    """
    rows = [row for row in rows if row.metric in FIDELITY and getattr(row, axis.column)]
    if len({(row.model, row.label) for row in rows}) < 2:
        return None
    keys = point_keys(rows)
    panels = [
        Chart(panel(FIDELITY[metric], _layers(members, axis, keys), subtitle=task), _finding(task, metric, members, axis))
        for task in sorted({row.task for row in rows})
        for metric in FIDELITY
        if (members := [row for row in rows if (row.task, row.metric) == (task, metric)])
    ]
    caption = (
        "KL divergence is that of full precision from the quantized model over the whole vocabulary, a mean over tokens. "
        "Intervals are over documents or windows of the text, and hold for single points."
    )
    return Picture(axis.picture, axis.title, caption, panels[0].finding, panels, keys, rows, columns=3)


def _layers(rows: list[StudyRow], axis: SizeAxis, keys: list[LegendKey]) -> list[Spec]:
    points = [
        LinePoint(row.quantizer_label, row.size_label, axis.place(row), row.value, row.ci_low, row.ci_high, _hover(row, axis))
        for row in rows
    ]
    places, ends = (
        [axis.place(row) for row in rows],
        [end for row in rows for end in (row.value, row.ci_low) if end is not None],
    )
    domain = [0.93 * min(places), 1.07 * max(places)]
    x = number_axis(axis.label, {"type": "log", "domain": domain, "nice": False}, tickCount=4, grid=False)
    by_factors = rows[0].metric == "kl_divergence" and min(ends) > 0
    return line_layers(points, keys, x, number_axis(None, {"type": "log"} if by_factors else {}), joined=False)


def _hover(row: StudyRow, axis: SizeAxis) -> str:
    ends = "" if row.ci_low is None or row.ci_high is None else f" [{row.ci_low:.4g}, {row.ci_high:.4g}]"
    return (
        f"{row.quantizer_label}: {row.model}, {FIDELITY[row.metric]} {row.value:.4g}{ends}, {axis.label} {axis.place(row):.4g}"
    )


def _finding(task: str, metric: str, rows: list[StudyRow], axis: SizeAxis) -> str:
    """Return the values of the first models, the smallest first."""
    ordered = [row for group in grouped(rows, axis.place).values() for row in group]
    some = [
        f"{row.quantizer_label} of {row.model} {row.value:.4g} ({axis.label} {axis.place(row):.3g})"
        for row in sorted(ordered, key=axis.place)[:5]
    ]
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"{FIDELITY[metric]}, {task}: {', '.join(some)}{more}."
