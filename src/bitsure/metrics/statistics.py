"""What a metric is: a statistic of questions that can be resampled, with an interval fit for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bitsure.metrics import bootstrap
from bitsure.metrics.confidence import Questions


class Statistic(Protocol):
    """A number of some questions, under weights that say how often each counts."""

    biased: bool  # then the interval is the basic one
    least: float  # the smallest value that can be

    def values(self, asked: Questions, weights: np.ndarray) -> np.ndarray:
        """weights (r, n) → (r,); NaN where the number does not exist."""

    def influence(self, asked: Questions) -> np.ndarray:
        """(n,) by how much the number changes with a question's weight, times n."""

    def count(self, asked: Questions) -> int:
        """Over how many questions the number is taken."""


@dataclass(frozen=True)
class Sums:
    """θ = of(Σ_i features_i); most metrics are that."""

    features: Callable[[Questions], np.ndarray]  # (n, m), or the same as a sparse array
    of: Callable[[np.ndarray], np.ndarray]  # (r, m) → (r,)
    biased: bool = False
    least: float = -math.inf
    among: Callable[[Questions], np.ndarray] | None = None  # (n,) 1 where a question counts

    def values(self, asked: Questions, weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.of(weights @ self.features(asked))

    def influence(self, asked: Questions) -> np.ndarray:
        features = self.features(asked)
        sums = features.sum(0)
        steps = np.diag(1e-6 * np.maximum(np.abs(sums), 1.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            gradient = (self.of(sums + steps) - self.of(sums - steps)) / (2 * np.diag(steps))
        return features @ gradient * len(asked)

    def count(self, asked: Questions) -> int:
        return len(asked) if self.among is None else int(self.among(asked).sum())


def mean(of: Callable[[Questions], np.ndarray], among: Callable[[Questions], np.ndarray] | None = None) -> Sums:
    """The mean of a number of each question, over all or over those where `among` is 1; NaN where there is none."""

    def features(asked: Questions) -> np.ndarray:
        counted = np.ones(len(asked)) if among is None else among(asked)
        return np.stack([of(asked) * counted, counted], axis=1)

    return Sums(features, lambda sums: sums[..., 0] / sums[..., 1], among=among)


@dataclass(frozen=True)
class Estimate:
    """A statistic's value, its standard error, and its values under resampling where it was resampled."""

    value: float
    standard_error: float
    replicates: np.ndarray | None
    biased: bool
    least: float

    def interval(self, level: float) -> tuple[float, float]:
        if self.replicates is None:
            low, high = bootstrap.normal_interval(self.value, self.standard_error, level)
        elif self.biased:
            low, high = bootstrap.basic_interval(self.value, self.replicates, level)
        else:
            low, high = bootstrap.percentile_interval(self.replicates, level)
        return max(low, self.least), max(high, self.least)

    @property
    def kind(self) -> str:
        if self.replicates is None:
            return "influence function"
        return "basic bootstrap" if self.biased else "percentile bootstrap"


def estimate(
    statistic: Statistic,
    asked: Questions,
    weights: np.ndarray | None,
    minus: Questions | None = None,
    clusters: np.ndarray | None = None,
) -> Estimate:
    """A statistic of some questions, or by how much it is more than that of `minus`, the same questions asked elsewhere.

    weights: (r, n) of a bootstrap; None: the influence function, summed within `clusters` (n,).
    """
    all_once = np.ones((1, len(asked)))
    value = statistic.values(asked, all_once)[0]
    if minus is not None:
        value = value - statistic.values(minus, all_once)[0]
    biased, least = statistic.biased and minus is None, statistic.least if minus is None else -math.inf
    if weights is None:
        influence = statistic.influence(asked) - (statistic.influence(minus) if minus is not None else 0)
        if clusters is not None:
            influence = np.bincount(clusters, influence)
        return Estimate(float(value), float(np.sqrt((influence**2).sum()) / len(asked)), None, biased, least)
    replicates = statistic.values(asked, weights)
    if minus is not None:
        replicates = replicates - statistic.values(minus, weights)
    finite = replicates[np.isfinite(replicates)]
    return Estimate(float(value), float(finite.std()) if len(finite) else math.nan, replicates, biased, least)
