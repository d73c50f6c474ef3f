"""Finding an answer in a long text: accuracy and true-label probability by the text's length and the answer's depth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitsure.metrics.arrays import BoolArray
from bitsure.metrics.metric_names import RETRIEVAL
from bitsure.metrics.statistic import SumStatistic, always, mean, proportion

PLACED = ("accuracy", "true_label_prob")
NAME = re.compile(rf"{RETRIEVAL}(?P<metric>\w+)_length_(?P<length>\d+)_depth_(?P<depth>\d+)")


@dataclass(frozen=True, order=True)
class Place:
    """Where the answers of some questions stand."""

    length: int
    """Of the text that is searched, words."""
    depth: int
    """How far into the text the answer stands, percent."""

    def metric(self, name: str) -> str:
        """Return what a metric of PLACED is called over the questions of this place."""
        return f"{RETRIEVAL}{name}_length_{self.length}_depth_{self.depth}"


def place_in_name(metric: str) -> tuple[str, Place] | None:
    """Return the metric of PLACED and the place that `Place.metric` made a name of; None for any other name."""
    match = NAME.fullmatch(metric)
    return (match["metric"], Place(int(match["length"]), int(match["depth"]))) if match else None


def questions_by_place(records: pa.Table) -> dict[Place, BoolArray]:
    """Return which questions each place has, shape (n,) each; questions without a length and a depth are at none.

    Args:
        records: One task's records, n of them.
    """
    lengths, depths = records["length"].to_numpy(), pc.round(pc.multiply(records["depth"], 100)).to_numpy()  # NaN for null
    known = np.isfinite(lengths) & np.isfinite(depths)
    places = sorted({Place(int(length), int(depth)) for length, depth in zip(lengths[known], depths[known], strict=True)})
    return {place: (lengths == place.length) & (depths == place.depth) for place in places}


def retrieval_metrics(records: pa.Table) -> dict[str, SumStatistic[Any]]:
    """Return the metrics of PLACED over the questions of each place, by `Place.metric`; none of other questions.

    Args:
        records: One task's records with choices, n of them; the statistics take a `QuestionSet` of the same n.
    """
    metrics = {}
    for place, here in questions_by_place(records).items():
        among = always(here)
        metrics[place.metric("accuracy")] = proportion(lambda q: q.correct, among)
        metrics[place.metric("true_label_prob")] = mean(lambda q: q.true_label_prob, among, least=0.0, most=1.0)
    return metrics
