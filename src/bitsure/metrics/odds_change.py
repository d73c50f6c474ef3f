"""How much, and for whom, the log-odds δ of what is right change: statistics of pairs of questions and of pairs of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.statistic import SumStatistic


class OddsPairs(Protocol):
    """n questions or tokens that two models answered, shape (n,) each."""

    @property
    def log_odds_change(self) -> FloatArray:
        """δ: the rise of the log-odds of what is right, nats; 0 where there are no odds."""

    @property
    def has_odds(self) -> FloatArray:
        """1 where there are odds, else 0."""

    @property
    def certainty(self) -> FloatArray:
        """The rank of the full model's certainty, from 0 (unsure) to 1."""

    def __len__(self) -> int: ...


P = TypeVar("P", bound=OddsPairs)


def odds_deviation(among: Callable[[P], FloatArray]) -> SumStatistic[P]:
    """Return the standard deviation of δ where `among` is 1."""

    def features(pairs: P) -> FloatArray:
        inside, change = among(pairs), pairs.log_odds_change
        return np.stack([inside, inside * change, inside * change**2], axis=1)

    def root(sums: FloatArray) -> FloatArray:
        n = sums[..., 0]
        variance: FloatArray = sums[..., 2] / n - (sums[..., 1] / n) ** 2
        deviation: FloatArray = np.sqrt(np.maximum(variance, 0.0))
        return deviation

    return SumStatistic(features, root, "widest", least=0.0, among=among)


def odds_slope() -> SumStatistic[OddsPairs]:
    """Return the least-squares slope of δ on the full model's certainty (0 … 1): above 0 where what is unsure fares worse.

    Its null value is not 0 but the slope of noise of the same size: it has a test where there is a noise control.
    """

    def features(pairs: OddsPairs) -> FloatArray:
        x, y = pairs.certainty, pairs.log_odds_change
        return np.stack([np.ones(len(pairs)), x, y, x * y, x * x], axis=1) * pairs.has_odds[:, None]

    def slope(sums: FloatArray) -> FloatArray:
        n, x, y, xy, xx = np.moveaxis(sums, -1, 0)
        spread = n * xx - x * x
        return np.where(spread > 1e-9 * n * n, (n * xy - x * y) / spread, np.nan)

    return SumStatistic(features, slope)
