"""Do unsure questions fare worse? Harm and instability by the full model's own certainty."""

from __future__ import annotations

from bitsure.metrics.question_pairs import STRATA
from bitsure.report.chart_layers import number_axis, reference_line
from bitsure.report.charts import Chart, Spec
from bitsure.report.tables import number
from bitsure.sweep.report.line_panels import (
    MOST_PANELS,
    LinePoint,
    findings,
    line_layers,
    panel,
    size_keys,
    sizes_of,
    with_interval,
)
from bitsure.sweep.report.picture import LegendKey, Picture
from bitsure.sweep.report.study_row import StudyRow, grouped, over_tasks

SHIFT_KINDS = ("harm", "instability")
SHIFT = tuple(f"{kind}_stratum_{k}" for kind in SHIFT_KINDS for k in range(1, STRATA + 1))
PLACES = list(range(1, STRATA + 1))
ENDS = (0.7, STRATA + 0.3)  # of the axis of certainty


def shift_picture(rows: list[StudyRow]) -> Picture | None:
    """Return harm and instability by certainty, a panel a quantizer, a line a size; None where there are no such numbers."""
    rows = over_tasks([row for row in rows if row.metric in SHIFT])
    if not rows:
        return None
    several = len({row.mean_over or row.task for row in rows}) > 1
    by_panel = grouped(rows, lambda row: f"{row.quantizer_label}, {row.questions}" if several else row.label)
    keys = size_keys(sizes_of(rows))
    panels = [
        Chart(
            {"hconcat": [_kind(kind, f"{label}: {kind}", members, keys) for kind in SHIFT_KINDS], "spacing": 10},
            f"{label}: {_finding(members)}",
        )
        for label, members in list(by_panel.items())[:MOST_PANELS]
    ]
    caption = (
        "Questions of each task in five equal parts by the full model's own certainty. Harm is the mean, instability the "
        "standard deviation of the change in the log-odds of the right answer (below 0: a loss); log-odds are free of the "
        "softmax's slope. The panels' axes differ. Compare a slope with that of noise of the same size, which control=noise "
        "adds to a run."
    )
    if len(panels) < len(by_panel):
        caption += f" The first {len(panels)} of {len(by_panel)} quantizers are drawn; the CSV has all."
    name, title = "shift_by_certainty", "Do unsure questions fare worse?"
    return Picture(name, title, caption, panels[0].finding, panels, keys, rows, columns=2)


def _kind(kind: str, title: str, rows: list[StudyRow], keys: list[LegendKey]) -> Spec:
    x = number_axis("certainty: low → high", {"domain": list(ENDS)}, values=PLACES, format="d", grid=False)
    y = number_axis(f"{kind}, nats", {"zero": True}, tickCount=5)
    points = [
        LinePoint(
            row.size_label,
            row.single_model,
            float(k),
            row.value,
            row.ci_low,
            row.ci_high,
            f"{row.size_label}: {kind} in fifth {k} {with_interval(row.value, row.ci_low, row.ci_high, sign=True)}",
        )
        for k in PLACES
        for row in rows
        if row.metric == f"{kind}_stratum_{k}"
    ]
    none = reference_line([(ENDS[0], 0), (ENDS[1], 0)], x, y)
    return panel(title, [none, *line_layers(points, keys, x, y)], width=210, height=170)


def _finding(rows: list[StudyRow]) -> str:
    """Return the harm where full precision is least and most certain."""
    ends = {}
    for size, members in grouped(rows, lambda row: row.size_label).items():
        harm = {row.metric: row.value for row in members}
        first, last = (harm.get(f"harm_stratum_{k}") for k in (1, STRATA))
        if first is not None and last is not None:
            ends[size] = f"{number(first, True)} nats where least certain, {number(last, True)} where most"
    return findings(ends)
