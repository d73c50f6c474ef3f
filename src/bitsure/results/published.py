"""published.json: numbers that papers print, with the run's own numbers."""

from __future__ import annotations

from bitsure.results.measurement import Number
from bitsure.results.result import Result


class ScaledMeasurement(Result):
    """A number of the run, times the scale that the published one has."""

    value: Number
    """The metric × `scale`."""
    ci_low: Number
    """The interval's lower end × `scale`; null where there is no interval."""
    ci_high: Number
    """The interval's upper end × `scale`; null where there is no interval."""


class PublishedNumber(Result):
    """One published number and what the run measured in its place; published.json is a list of them."""

    model: str
    """The model's name."""
    task: str
    """The harness's name of the task, or the run's text and protocol."""
    metric: str
    """The metric's name, as in metrics.json."""
    setting: str
    """What the source calls its setting, such as `W4A8`."""
    scale: float
    """How many times the metric the published number is, such as 100 for percent."""
    source: str
    """Where the number is printed."""
    note: str
    """What a reader has to know of it."""
    published: float
    """The number as printed."""
    measured: ScaledMeasurement
    """The run's own number."""
    n: int
    """Questions behind the run's own number."""
    same: list[str]
    """What the two have in common."""
    differs: list[str]
    """What is different in the run."""
