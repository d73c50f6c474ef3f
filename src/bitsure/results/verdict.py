"""verdict.json: whether the quantized model may be shipped."""

from __future__ import annotations

from typing import Literal

from bitsure.results.measurement import Number
from bitsure.results.result import Result

Decision = Literal["non-inferior", "inferior", "undecided"]
Place = Literal["worse", "within", "better", "below", "above"]


class MarginVerdict(Result):
    """One metric of one task, held against its margin."""

    verdict: Decision
    """Non-inferior where the interval's upper end is below the margin, inferior where its lower end is above."""
    loss: float
    """How much worse the quantized model is, in the metric's unit; negative where it is better."""
    ci_low: Number
    """The lower end of the loss's interval; null where the questions are too few for one."""
    ci_high: Number
    """The upper end of the loss's interval; null where the questions are too few for one."""
    margin: float
    """The largest loss that is small enough to ship, in the metric's unit, above 0."""
    n: int
    """How many questions were compared."""
    n_clusters: int | None = None
    """How many clusters the questions come in; absent where every question is alone."""


class TaskVerdict(Result):
    """The verdict on one task."""

    verdict: Decision
    """Inferior if any metric is, non-inferior if all are, else undecided."""
    sentence: str
    """The verdict in words."""
    warning: str | None
    """What makes the verdict worth little, such as a model that guesses; null where nothing does."""
    margins: dict[str, MarginVerdict]
    """Metric → its verdict; empty where no question was compared."""
    smallest_detectable: float | None
    """The change that the task's test finds with 80% power; null where there is no test."""


class NoiseVerdict(Result):
    """Where the quantized model lies within what noise of the same output error does."""

    places: dict[str, Place | None]
    """Metric → within the noise's range, better or worse than it, or below or above it where no direction is the better one;
    null where the number does not exist."""
    sentence: str
    """The same in words."""


class Verdict(Result):
    """verdict.json."""

    verdict: Decision
    """The verdict on all tasks together."""
    strict: bool
    """Whether the run was to fail unless it is non-inferior (`verdict=strict`)."""
    level: float
    """The confidence level of the intervals, in (0, 1)."""
    noise_control: dict[str, NoiseVerdict] | None
    """Task → its place within the noise control; null where none was scored."""
    tasks: dict[str, TaskVerdict]
    """Task → its verdict."""
