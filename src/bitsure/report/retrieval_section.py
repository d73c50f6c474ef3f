"""Finding an answer in a long text, in words: a sentence a task, and a table of length × depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitsure.metrics.retrieval_metrics import Place, place_in_name
from bitsure.report.tables import number
from bitsure.results import Comparison, Difference, Measurement, MetricsByTask


@dataclass(frozen=True)
class RetrievalSection:
    """What is said of one task."""

    task: str
    sentence: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def numbers_by_place(values: Mapping[str, Measurement], metric: str) -> dict[Place, Measurement]:
    """Return the numbers of a task that are of one metric over the questions of one length and depth; empty if it has none."""
    places = {parts[1]: measured for name, measured in values.items() if (parts := place_in_name(name)) and parts[0] == metric}
    return dict(sorted(places.items()))


def retrieval_sections(metrics: MetricsByTask, comparison: Comparison | None) -> list[RetrievalSection]:
    """Return a section for each task whose questions have a length and a depth.

    Args:
        metrics: The run's numbers.
        comparison: Those beside full precision, if there is a comparison.
    """
    sections = []
    for task, values in metrics.items():
        changes = (comparison or {}).get(task, {})
        accuracy = numbers_by_place(values, "accuracy")
        if accuracy:
            changed = {place: changes[place.metric("accuracy")] for place in accuracy if place.metric("accuracy") in changes}
            sections.append(_section(task, accuracy, changed))
    return sections


def _section(task: str, accuracy: dict[Place, Measurement], changes: dict[Place, Difference]) -> RetrievalSection:
    lengths, depths = (sorted({getattr(place, axis) for place in accuracy}) for axis in ("length", "depth"))
    rows = [(f"{depth}%", *(_cell(Place(length, depth), accuracy, changes) for length in lengths)) for depth in depths]
    sentence = _change(changes) if changes else _alone(accuracy)
    return RetrievalSection(task, f"{task}: {sentence}", ("depth", *(f"{length} words" for length in lengths)), rows)


def _cell(place: Place, accuracy: Mapping[Place, Measurement], changes: Mapping[Place, Difference]) -> str:
    if place in changes:
        return f"{_short(changes[place].baseline)} → {_short(changes[place].quantized)}"
    return _short(accuracy[place].value) if place in accuracy else ""


def _change(changes: Mapping[Place, Difference]) -> str:
    place, worst = min(changes.items(), key=lambda item: item[1].value or 0.0)
    ends = [
        f"{length} words {_short(_mean(changes, length, 'baseline'))} → {_short(_mean(changes, length, 'quantized'))}"
        for length in _ends(changes)
    ]
    return (
        f"accuracy in texts of {', of '.join(ends)}; the lowest change is at {where(place)}: "
        f"{number(worst.value, True)}. Of {len(changes)} places the lowest is partly low by chance."
    )


def _alone(accuracy: Mapping[Place, Measurement]) -> str:
    place, worst = min(accuracy.items(), key=lambda item: item[1].value or 0.0)
    ends = [f"{length} words {_short(_mean(accuracy, length, 'value'))}" for length in _ends(accuracy)]
    return (
        f"accuracy in texts of {', of '.join(ends)}; the lowest is at {where(place)}: {number(worst.value)}. "
        f"Of {len(accuracy)} places the lowest is partly low by chance."
    )


def _ends(places: Mapping[Place, Measurement]) -> list[int]:
    """Return the shortest and the longest length, once if they are one."""
    lengths = [place.length for place in places]
    return sorted({min(lengths), max(lengths)})


def _mean(places: Mapping[Place, Measurement], length: int, field: str) -> float:
    """Return the mean of a number over the questions of one length."""
    here = [of_place for place, of_place in places.items() if place.length == length]
    return float(np.average([getattr(of_place, field) for of_place in here], weights=[of_place.n for of_place in here]))


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def where(place: Place) -> str:
    """Return a place in words."""
    return f"{place.length} words, depth {place.depth}%"
