"""What is known of one metric: what it measures, in which unit and range, and where it is from."""

from __future__ import annotations

from dataclasses import dataclass

SHARE, PROBABILITY, NATS, RATIO = "share of questions", "probability", "nats", "none"
UNIT, POSITIVE, ANY = "[0, 1]", "[0, ∞)", "(−∞, ∞)"


@dataclass(frozen=True)
class MetricEntry:
    """One metric.

    Attributes:
        sentence: What it measures.
        unit: Its unit.
        range: The values it can take in metrics.json, or in comparison.json where it is only there.
        source: The publication or program that defines it; empty where the sentence does.
    """

    sentence: str
    unit: str
    range: str
    source: str = ""
