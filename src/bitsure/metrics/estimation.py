"""Statistics estimated from one set of questions, or as a difference of two, with standard errors and intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitsure.metrics import bootstrap
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.statistic import Statistic, SumStatistic

NO_SIDES = (math.nan, math.nan)
LEAST_DEVIATION = 1e-12  # a spread below it is rounding


@dataclass(frozen=True)
class PointEstimate:
    """A statistic's value with what its interval needs.

    Attributes:
        value: The estimate, in the statistic's unit; NaN where it does not exist.
        standard_error: Its standard error, in the same unit.
        replicates: Its values under resampling, shape (r,); None where it was not resampled.
        method: How its interval is made, such as `percentile bootstrap` or `influence function`.
        least: The smallest value that can be.
        sides: Of a difference, the two values.
        standardized: Of a difference, what the function `standardized` returns.
    """

    value: float
    standard_error: float
    replicates: FloatArray | None
    method: str
    least: float
    sides: tuple[float, float] = NO_SIDES
    standardized: tuple[float, float] = NO_SIDES

    def interval(self, level: float) -> tuple[float, float]:
        """Return the confidence interval at a level in (0, 1); NaN where there is none."""
        if self.replicates is None or self.method == "normal bootstrap":
            low, high = bootstrap.normal_interval(self.value, self.standard_error, level)
        elif self.method == "basic bootstrap":
            low, high = bootstrap.basic_interval(self.value, self.replicates, level)
        else:
            low, high = bootstrap.percentile_interval(self.replicates, level)
        return max(low, self.least), max(high, self.least)


def estimate(
    statistics: Mapping[str, Statistic[Any]],
    questions: Any,
    weights: FloatArray | None,
    clusters: IntArray | None = None,
    minus: Any | None = None,
) -> dict[str, PointEstimate]:
    """Return each statistic of a set of questions, or how much larger it is than that of another set.

    Args:
        statistics: Name → statistic.
        questions: The n questions.
        weights: How often each question counts in each resample, shape (n, r). If None, and for statistics that are no
            functions of sums, the standard error comes from the influence function.
        clusters: Each question's cluster, shape (n,), from 0; questions of one cluster err together.
        minus: The same questions answered by another model; None for the statistics themselves instead of differences.
    """
    resampled = {name: sums for name, one in statistics.items() if (sums := one.as_sums())} if weights is not None else {}
    replicates = _replicates(resampled, questions, weights)
    if minus is not None:
        other = _replicates(resampled, minus, weights)
        with np.errstate(invalid="ignore"):  # a number that exists on neither side has no difference
            replicates = {name: values - other[name] for name, values in replicates.items()}
    return {
        name: _alone(one, questions, replicates.get(name), clusters)
        if minus is None
        else _difference(one, questions, minus, replicates.get(name), clusters)
        for name, one in statistics.items()
    }


def _alone(
    statistic: Statistic[Any], questions: Any, replicates: FloatArray | None, clusters: IntArray | None
) -> PointEstimate:
    if replicates is not None:
        error, method = _spread(replicates), f"{statistic.interval} bootstrap"
        return PointEstimate(statistic.value(questions), error, replicates, method, statistic.least)
    value, influence = statistic.value_and_influence(questions)
    return PointEstimate(value, standard_error(influence, clusters), None, "influence function", statistic.least)


def _difference(
    statistic: Statistic[Any], questions: Any, minus: Any, replicates: FloatArray | None, clusters: IntArray | None
) -> PointEstimate:
    (value, influence), (other, other_influence) = (statistic.value_and_influence(side) for side in (questions, minus))
    difference, influence = value - other, influence - other_influence
    scaled = standardized(difference, influence, clusters)
    error, method = standard_error(influence, clusters), "influence function"
    if replicates is not None:
        error, method = _spread(replicates), f"{statistic.interval} bootstrap"
    return PointEstimate(difference, error, replicates, method, -math.inf, (value, other), scaled)


def _spread(replicates: FloatArray) -> float:
    finite = replicates[np.isfinite(replicates)]
    return float(finite.std()) if len(finite) else math.nan


def standard_error(influence: FloatArray, clusters: IntArray | None) -> float:
    """Return the standard error √(Σ_c (Σ_{i∈c} ψ_i)²) / n of a number with influence ψ.

    Args:
        influence: Each question's influence, shape (n,).
        clusters: Each question's cluster, shape (n,), from 0; None if every question is a cluster of its own.

    Reference: Jaeckel 1972, the infinitesimal jackknife.
    """
    together = influence if clusters is None else np.bincount(clusters, influence)
    return float(np.sqrt((together**2).sum()) / len(influence))


def standardized(difference: float, influence: FloatArray, clusters: IntArray | None) -> tuple[float, float]:
    """Return a difference in standard deviations of the questions' influence on it, and the error of that ratio.

    For a mean the influence ψ is a question's difference less the mean one, and the ratio d is Cohen's d_z. The error follows
    from d's own influence, ψ / s − d (ψ² / s² − 1) / 2, in which what ψ is made of (a bin's mean, a rank) is held fixed.

    Args:
        difference: The difference d · s.
        influence: ψ, shape (n,).
        clusters: Each question's cluster, shape (n,), from 0; None if every question is a cluster of its own.

    Returns:
        d and its standard error; NaN where the influence does not vary.
    """
    deviation = float(influence.std(ddof=1)) if len(influence) > 1 else math.nan
    if not deviation > LEAST_DEVIATION:
        return math.nan, math.nan
    scaled, ratio = influence / deviation, float(difference) / deviation
    return ratio, standard_error(scaled - ratio * (scaled**2 - 1) / 2, clusters)


def _replicates(
    statistics: Mapping[str, SumStatistic[Any]], questions: Any, weights: FloatArray | None
) -> dict[str, FloatArray]:
    """Return each statistic's values under resampling, shape (r,).

    Reading the weights takes most of the time: features that several statistics share are summed once, and all dense ones go
    through one matrix product.
    """
    features = {one.features: one.features(questions) for one in statistics.values()}
    dense = {key: values for key, values in features.items() if isinstance(values, np.ndarray)}
    sums = {key: (values.T @ weights).T for key, values in features.items() if key not in dense}
    if dense:
        ends = np.cumsum([values.shape[1] for values in dense.values()])
        together = np.concatenate(list(dense.values()), axis=1).T @ weights
        sums |= zip(dense, np.split(together.T, ends[:-1], axis=1), strict=True)
    return {name: one.from_sums(sums[one.features]) for name, one in statistics.items()}
