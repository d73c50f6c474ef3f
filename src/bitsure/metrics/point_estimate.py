"""An estimate with what its interval needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bitsure.metrics import bootstrap
from bitsure.metrics.arrays import FloatArray
from bitsure.results.measurement import Interval

NO_SIDES = (math.nan, math.nan)
NO_INTERVAL = "none: "  # what the method of an estimate without an interval begins with; the reason follows
INFLUENCE = "influence function"
LARGEST_EXPONENT = 709.0  # of e, in a double
IntervalShape: TypeAlias = Literal["none", "t", "log t", "score", "percentile", "widest"]


@dataclass(frozen=True)
class PointEstimate:
    """A statistic's value with what its interval needs.

    Attributes:
        value: The estimate, in the statistic's unit; NaN where it does not exist.
        standard_error: Its standard error, in the same unit; NaN where it does not exist.
        replicates: Its values under resampling, shape (r,); None where its interval does not resample.
        method: How its interval is made, such as `percentile bootstrap`, or why there is none.
        shape: The interval's formula.
        freedom: Degrees of freedom of its t quantile; infinite for the normal one.
        chance_share: The share of the variance that falls with the square of the number of questions, in [0, 1].
        least: The smallest value that can be.
        most: The largest value that can be.
        units: How many questions, or clusters of them, it is taken over.
        sides: Of a difference, the two values.
        standardized: Of a difference, what the function `standardized` returns.
        variance_error: Of a difference, the standard error of its variance as a share of that; NaN where it does not vary.
    """

    value: float
    standard_error: float
    replicates: FloatArray | None
    method: str
    shape: IntervalShape = "t"
    freedom: float = math.inf
    chance_share: float = 0.0
    least: float = -math.inf
    most: float = math.inf
    units: int = 0
    sides: tuple[float, float] = NO_SIDES
    standardized: tuple[float, float] = NO_SIDES
    variance_error: float = math.nan

    def interval(self, level: float) -> Interval:
        """Return the confidence interval at a level in (0, 1); NaN where there is none."""
        low, high = self._ends(level)
        return min(max(low, self.least), self.most), min(max(high, self.least), self.most)

    def finite_interval(self, level: float) -> Interval | None:
        """Return the confidence interval at a level in (0, 1); None where there is none."""
        interval = self.interval(level)
        return interval if all(map(math.isfinite, interval)) else None

    def _ends(self, level: float) -> tuple[float, float]:
        if self.shape == "none":
            return math.nan, math.nan
        if self.shape == "score":
            low, high = score_interval(self.value, self.standard_error, self.units, self.freedom, level)
            if self.replicates is None:
                return low, high
            drawn_low, drawn_high = bootstrap.percentile_interval(self.replicates, level)
            return min(low, drawn_low), max(high, drawn_high)
        if self.shape == "log t" and self.value > 0:
            half = self.standard_error / self.value
            low, high = bootstrap.t_interval(math.log(self.value), half, self.freedom, level)
            return math.exp(low), math.exp(min(high, LARGEST_EXPONENT))
        if self.shape in ("t", "log t") or self.replicates is None:
            return bootstrap.t_interval(self.value, self.standard_error, self.freedom, level)
        low, high = bootstrap.percentile_interval(self.replicates, level)
        if self.shape == "widest":
            basic_low, basic_high = bootstrap.basic_interval(self.value, self.replicates, level)
            return min(low, basic_low), max(high, basic_high)
        return low, high


def score_interval(share: float, standard_error: float, units: int, freedom: float, level: float) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion.

    Args:
        share: The proportion, in [0, 1].
        standard_error: Its standard error. It says how many independent questions those of the clusters are worth.
        units: How many questions or clusters there are: what they are worth where all answers are alike.
        freedom: Degrees of freedom of the quantile; infinite for independent questions.
        level: The confidence level, in (0, 1).

    Reference: Wilson 1927; Korn & Graubard 1998 for the effective number.
    """
    n = share * (1 - share) / standard_error**2 if standard_error > 0 else units
    if not n > 0:
        return math.nan, math.nan
    z2 = bootstrap.t_quantile(freedom, level) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return middle - half, middle + half
