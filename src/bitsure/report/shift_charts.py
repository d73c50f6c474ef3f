"""Draw how the right answer shifted, by how sure full precision was: as the study does, and as harm and instability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from bitsure.comparison.noise_control import HARM, INSTABILITY
from bitsure.metrics.confidence_shift import BINS, LOG_ODDS_SHIFT, PROBABILITY_SHIFT
from bitsure.metrics.metric_names import NOISE_CONTROL
from bitsure.metrics.question_pairs import STRATA
from bitsure.report.chart_layers import QUANTIZED, band, lines, number_axis, points, reference_line
from bitsure.report.charts import WIDTH, Chart, Series, Spec, table, titled
from bitsure.report.shift_sentence import filled_bins, percent_of_bin, shift_sentence
from bitsure.report.tables import interval, number
from bitsure.results import Difference

FEWEST_DRAWN = 10  # questions in a bin
Groups: TypeAlias = dict[str, tuple[float, str]]  # metric of a group of questions → its place on the axis, the group in words


def confidence_shift_chart(task: str, values: Mapping[str, Difference]) -> Chart:
    """Return the study's picture: the change of the right answer's probability by the confidence of full precision.

    Beside it is the change of the log-odds, on which the softmax's slope has no effect. Bins of few questions, whose intervals
    would dwarf the others, are left out unless that leaves fewer than two.
    """
    bins = filled_bins(values, FEWEST_DRAWN)
    if len(bins) < 2:
        bins = filled_bins(values, 0)
    ends = [bins[0] / BINS, 1]
    x = number_axis("confidence before", {"domain": ends}, format=".0%", values=ends, grid=False)

    def panel(names: tuple[str, ...], title: str) -> Spec:
        return shift_panel(values, {names[k]: ((k + 0.5) / BINS, f"confidence {percent_of_bin(k)}") for k in bins}, x, title)

    panels = [panel(PROBABILITY_SHIFT, "probability"), panel(LOG_ODDS_SHIFT, "log-odds, nats")]
    return Chart(titled(task, {"hconcat": panels, "spacing": 12}), shift_sentence(task, values))


def shift_chart(task: str, values: Mapping[str, Difference]) -> Chart:
    """Return how the log-odds of the right answer change, by the certainty of full precision.

    Left the mean change (harm), right its standard deviation (instability), each over a fifth of the questions.
    """
    places = list(range(1, STRATA + 1))
    x = number_axis("certainty: low → high", {"domain": [0.7, STRATA + 0.3]}, values=places, format="d", grid=False)

    def panel(kind: str, names: tuple[str, ...]) -> Spec:
        groups = {name: (float(k), f"{kind} in fifth {k}") for k, name in zip(places, names, strict=True)}
        return shift_panel(values, groups, x, f"{kind}, nats")

    panels = [panel("harm", HARM), panel("instability", INSTABILITY)]
    first, last = (number(values[name].value, sign=True) for name in (HARM[0], HARM[-1]))
    finding = (
        f"{task}: the mean change in the log-odds of the right answer is {first} where full precision is least certain and "
        f"{last} where it is most certain."
    )
    return Chart(titled(task, {"hconcat": panels, "spacing": 12}), finding)


def shift_panel(values: Mapping[str, Difference], groups: Groups, x: Spec, title: str, unit: str = "questions") -> Spec:
    """Return one half of a picture: changes with their intervals, over the noise control's range where there is one.

    Args:
        values: The task's part of a comparison.
        groups: What is drawn.
        x: The horizontal axis.
        title: The title of the vertical axis.
        unit: What `n` counts.
    """
    y = number_axis(title, {"zero": True}, tickCount=4)
    layers = [reference_line([(end, 0) for end in x["scale"]["domain"]], x, y)]
    places = [place for place, _ in groups.values()]
    noise = [values[f"{NOISE_CONTROL}{name}"] for name in groups if f"{NOISE_CONTROL}{name}" in values]
    if noise:
        low, high = ([of_group.ci_low for of_group in noise], [of_group.ci_high for of_group in noise])
        layers.insert(0, band(table({"x": places, "low": low, "high": high}), x, y))
    changes = [values[name] for name in groups]
    hover = [
        f"{words}: {number(change.value, sign=True)} {interval(change, sign=True)}, {change.n:,} {unit}"
        for (_, words), change in zip(groups.values(), changes, strict=True)
    ]
    columns: dict[str, Sequence[float | None]] = {
        "x": places,
        "y": [change.value for change in changes],
        "low": [change.ci_low for change in changes],
        "high": [change.ci_high for change in changes],
    }
    layers += lines([Series(title, points(columns, hover), QUANTIZED)], x, y)
    return {"width": WIDTH / 2 - 42, "height": 180, "layer": layers}
