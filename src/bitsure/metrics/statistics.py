"""What a metric is: a statistic of questions, with an interval fit for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bitsure.metrics import bootstrap

BLOCK = 256  # sums that are varied at once


class Statistic(Protocol):
    """A number of some questions (or of pairs of them: anything with a length and arrays of it)."""

    interval: str  # of its resampling: percentile; basic, if it is biased; normal, if its replicates are
    least: float  # the smallest value that can be

    def value(self, asked: Any) -> float:
        """NaN where the number does not exist."""

    def value_and_influence(self, asked: Any) -> tuple[float, np.ndarray]:
        """The number, and (n,) by how much it changes with a question's weight, times n."""

    def count(self, asked: Any) -> int:
        """Over how many questions the number is taken."""


@dataclass(frozen=True)
class Sums:
    """θ = of(Σ_i features_i): it can be resampled; most metrics are that."""

    features: Callable[[Any], np.ndarray]  # (n, m), or the same as a sparse array
    of: Callable[[np.ndarray], np.ndarray]  # (r, m) → (r,)
    interval: str = "percentile"
    least: float = -math.inf
    among: Callable[[Any], np.ndarray] | None = None  # (n,) 1 where a question counts

    def value(self, asked: Any) -> float:
        return float(self.from_sums(self.features(asked).sum(0)[None])[0])

    def from_sums(self, sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return self.of(sums)

    def value_and_influence(self, asked: Any) -> tuple[float, np.ndarray]:
        features = self.features(asked)
        sums = features.sum(0)
        steps = 1e-6 * np.maximum(np.abs(sums), 1.0)
        gradient = np.empty(len(sums))
        for i in range(0, len(sums), BLOCK):
            change = np.diag(steps)[i : i + BLOCK]
            gradient[i : i + BLOCK] = (self.from_sums(sums + change) - self.from_sums(sums - change)) / (
                2 * steps[i : i + BLOCK]
            )
        with np.errstate(invalid="ignore"):  # NaN where the number does not exist
            return float(self.from_sums(sums[None])[0]), features @ gradient * len(asked)

    def count(self, asked: Any) -> int:
        return len(asked) if self.among is None else int(self.among(asked).sum())


def mean(of: Callable[[Any], np.ndarray], among: Callable[[Any], np.ndarray] | None = None) -> Sums:
    """The mean of a number of each question, over all or over those where `among` is 1; NaN where there is none."""

    def features(asked: Any) -> np.ndarray:
        counted = np.ones(len(asked)) if among is None else among(asked)
        return np.stack([of(asked) * counted, counted], axis=1)

    return Sums(features, lambda sums: sums[..., 0] / sums[..., 1], among=among)


@dataclass(frozen=True)
class Estimate:
    """A statistic's value, its standard error, and its values under resampling where it was resampled."""

    value: float
    standard_error: float
    replicates: np.ndarray | None
    kind: str  # of interval
    least: float
    # of a difference: the two values, and what the function of that name says
    sides: tuple[float, float] = (math.nan, math.nan)
    standardized: tuple[float, float] = (math.nan, math.nan)

    def interval(self, level: float) -> tuple[float, float]:
        if self.replicates is None or self.kind == "normal bootstrap":
            low, high = bootstrap.normal_interval(self.value, self.standard_error, level)
        elif self.kind == "basic bootstrap":
            low, high = bootstrap.basic_interval(self.value, self.replicates, level)
        else:
            low, high = bootstrap.percentile_interval(self.replicates, level)
        return max(low, self.least), max(high, self.least)


def estimate(
    statistics: Mapping[str, Statistic],
    asked: Any,
    weights: np.ndarray | None,
    clusters: np.ndarray | None = None,
    minus: Any | None = None,
) -> dict[str, Estimate]:
    """Each statistic of some questions, or by how much it is more than that of `minus`, the same questions asked elsewhere.

    weights: (n, r) of a bootstrap. None, and what cannot be resampled: the influence function, summed within `clusters` (n,).
    """
    resampled = {name: one for name, one in statistics.items() if weights is not None and isinstance(one, Sums)}
    replicates = _replicates(resampled, asked, weights)
    if minus is not None:
        other = _replicates(resampled, minus, weights)
        with np.errstate(invalid="ignore"):  # what does not exist of either, does not of the difference
            replicates = {name: found - other[name] for name, found in replicates.items()}
    found = {}
    for name, one in statistics.items():
        least, difference = one.least, {}
        if minus is None and name in replicates:
            value = one.value(asked)
        else:
            value, influence = one.value_and_influence(asked)
        if minus is not None:
            other_value, other_influence = one.value_and_influence(minus)
            difference["sides"] = value, other_value
            value, least, influence = value - other_value, -math.inf, influence - other_influence
            difference["standardized"] = standardized(value, influence, clusters)
        if name in replicates:
            finite = replicates[name][np.isfinite(replicates[name])]
            error, kind = float(finite.std()) if len(finite) else math.nan, f"{one.interval} bootstrap"
        else:
            error, kind = standard_error(influence, clusters), "influence function"
        found[name] = Estimate(value, error, replicates.get(name), kind, least, **difference)
    return found


def standard_error(influence: np.ndarray, clusters: np.ndarray | None) -> float:
    """Of a number with that influence (n,) of each question; questions of one cluster err together."""
    together = influence if clusters is None else np.bincount(clusters, influence)
    return float(np.sqrt((together**2).sum()) / len(influence))


def standardized(difference: float, influence: np.ndarray, clusters: np.ndarray | None) -> tuple[float, float]:
    """A difference d · s over the standard deviation s of the questions' influence on it, and the error of d; both may be NaN.

    influence: (n,) ψ. For a mean, ψ is a question's difference less the mean one, and d is Cohen's d_z. The error follows from
    d's own influence, ψ / s − d (ψ² / s² − 1) / 2, in which what ψ is made of (a bin's mean, a rank) is held fixed.
    """
    deviation = float(influence.std(ddof=1)) if len(influence) > 1 else math.nan
    if not deviation > 1e-12:
        return math.nan, math.nan
    scaled, ratio = influence / deviation, float(difference) / deviation
    return ratio, standard_error(scaled - ratio * (scaled**2 - 1) / 2, clusters)


def _replicates(statistics: Mapping[str, Sums], asked: Any, weights: np.ndarray | None) -> dict[str, np.ndarray]:
    """(r,) of each statistic. Reading the weights is what costs: features that several have in common are summed once, and the
    dense ones go through one matrix product.
    """
    features = {one.features: one.features(asked) for one in statistics.values()}
    dense = {of: found for of, found in features.items() if isinstance(found, np.ndarray)}
    sums = {of: (found.T @ weights).T for of, found in features.items() if of not in dense}
    if dense:
        ends = np.cumsum([found.shape[1] for found in dense.values()])
        together = np.concatenate(list(dense.values()), axis=1).T @ weights
        sums |= zip(dense, np.split(together.T, ends[:-1], axis=1), strict=True)
    return {name: one.from_sums(sums[one.features]) for name, one in statistics.items()}
