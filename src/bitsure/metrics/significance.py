"""Tests of a quantized model against its full-precision self, each with an effect size and its interval."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bitsure.metrics import bootstrap
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.estimation import FEWEST, LEAST_DEVIATION, standard_error, standardized
from bitsure.metrics.point_estimate import PointEstimate
from bitsure.results.measurement import Interval

COHENS_D_Z = "Cohen's d_z"
POWER = 0.8  # at which `smallest_detectable` is found


@dataclass(frozen=True)
class SignificanceTest:
    """A test of significance with its effect size; the fields mean what those of `results.Difference` do."""

    test: str
    statistic: float | None
    p_value: float
    effect: str
    effect_size: float | None
    effect_size_ci: Interval | None
    smallest_detectable: float | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of a `Difference` that the test sets."""
        fields = asdict(self)
        if self.smallest_detectable is None:
            del fields["smallest_detectable"]
        return fields


def paired_t_test(
    difference: FloatArray, weights: FloatArray | None, clusters: IntArray | None, level: float, alpha: float
) -> SignificanceTest:
    """Return the two-sided paired t-test of a zero mean difference, with Cohen's d_z (mean / standard deviation).

    The test takes questions for independent, as the study does. Where differences do not vary there is no test, and the p-value
    is 1.

    Args:
        difference: Each question's difference, shape (n,).
        weights: How often each question counts in each resample, shape (n, r), for the interval of d_z; None to take it from
            the influence function.
        clusters: Each question's cluster, shape (n,), from 0, within which the influence is summed.
        level: The confidence level of that interval, in (0, 1).
        alpha: The significance level at which `smallest_detectable` has 80% power, in (0, 1).

    Reference: Student 1908; Cohen 1988 for d_z.
    """
    from scipy.stats import ttest_1samp

    n = len(difference)
    deviation = float(difference.std(ddof=1)) if n > 1 else 0.0
    if deviation <= LEAST_DEVIATION:
        return SignificanceTest("paired t-test", None, 1.0, COHENS_D_Z, None, None)
    statistic, p_value = ttest_1samp(difference, 0.0)
    d_z, error = standardized(difference.mean(), difference - difference.mean(), clusters)
    ends = bootstrap.normal_interval(d_z, error, level)
    if weights is not None:
        counts = weights.sum(0)
        means = difference @ weights / counts
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates = means / np.sqrt(difference**2 @ weights / counts - means**2)
        ends = bootstrap.percentile_interval(replicates, level)
    interval = _effect_interval(ends, bootstrap.count_units(n, clusters))
    return SignificanceTest(
        test="paired t-test",
        statistic=float(statistic),
        p_value=float(p_value),
        effect=COHENS_D_Z,
        effect_size=d_z if interval else None,
        effect_size_ci=interval,
        smallest_detectable=_detectable_errors(alpha, n - 1) * deviation / math.sqrt(n),
    )


def cluster_robust_t_test(
    difference: FloatArray, clusters: IntArray, level: float, alpha: float
) -> tuple[SignificanceTest, Interval]:
    """Return the paired t-test, and the interval of the mean difference, where only clusters are independent.

    Args:
        difference: Each question's difference, shape (n,).
        clusters: Each question's cluster, shape (n,), from 0.
        level: The confidence level of the intervals, in (0, 1).
        alpha: The significance level at which `smallest_detectable` has 80% power, in (0, 1).

    Returns:
        The test with G − 1 degrees of freedom for G clusters, and the interval.

    Reference: Liang & Zeger 1986 for the variance; Cameron & Miller 2015 for its correction by G / (G − 1).
    """
    from scipy.stats import t

    groups, middle = int(clusters.max()) + 1, float(difference.mean())
    test = f"cluster-robust t-test, {groups:,} clusters"
    error = math.sqrt(groups / (groups - 1)) * standard_error(difference - middle, clusters)
    if error <= LEAST_DEVIATION:
        return SignificanceTest(test, None, 1.0, COHENS_D_Z, None, None), (middle, middle)
    d_z, d_z_error = standardized(middle, difference - middle, clusters)
    interval = _effect_interval(bootstrap.normal_interval(d_z, d_z_error, level), groups)
    result = SignificanceTest(
        test=test,
        statistic=middle / error,
        p_value=float(2 * t.sf(abs(middle / error), groups - 1)),
        effect=COHENS_D_Z,
        effect_size=d_z if interval else None,
        effect_size_ci=interval,
        smallest_detectable=_detectable_errors(alpha, groups - 1) * error,
    )
    return result, bootstrap.t_interval(middle, error, groups - 1, level)


def z_test(estimate: PointEstimate, level: float) -> SignificanceTest | None:
    """Return the two-sided test of a difference over its standard error.

    There is none where the difference does not vary, or over fewer than `FEWEST` questions or clusters: with a standard error
    from so few the test rejects a true hypothesis too often. It is for exploration only. The effect size is the difference over
    the standard deviation of the questions' influence on it (`estimation.standardized`).

    Args:
        estimate: A difference.
        level: The confidence level of the effect size's interval, in (0, 1).
    """
    from scipy.stats import norm

    if estimate.shape == "none" or estimate.units < FEWEST or not math.isfinite(estimate.value):
        return None
    if not LEAST_DEVIATION < estimate.standard_error < math.inf:
        return None
    z = estimate.value / estimate.standard_error
    size, error = estimate.standardized
    interval = _effect_interval(bootstrap.normal_interval(size, error, level), estimate.units)
    return SignificanceTest(
        test="z-test",
        statistic=z,
        p_value=float(2 * norm.sf(abs(z))),
        effect="standardized difference",
        effect_size=size if interval else None,
        effect_size_ci=interval,
    )


def _effect_interval(interval: Interval, units: int) -> Interval | None:
    """Return an effect size's interval; None where it does not exist or rests on too few questions or clusters."""
    return interval if units >= FEWEST and all(map(math.isfinite, interval)) else None


def _detectable_errors(alpha: float, freedom: int) -> float:
    """Return how many standard errors a mean difference must measure for the test at alpha to find it with 80% power."""
    from scipy.stats import t

    return float(t.ppf(1 - alpha / 2, freedom) + t.ppf(POWER, freedom))
