"""Tests of a quantized model against its full-precision self, each with an effect size and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bitsure.metrics import bootstrap
from bitsure.metrics.question_pairs import Outcomes
from bitsure.metrics.statistics import Estimate, standard_error, standardized
from bitsure.results.measurement import Interval

BECAME_WRONG = "of the changed became wrong"  # what the effect size of `mcnemar` is a share of


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
    difference: np.ndarray, weights: np.ndarray | None, clusters: np.ndarray | None, level: float, alpha: float
) -> SignificanceTest:
    """The two-sided paired t-test of a zero mean difference (n,), with Cohen's d_z (mean / standard deviation) and interval.

    Where differences do not vary there is no test, and the p-value is 1. `smallest_detectable` is the mean difference that a
    test at this alpha finds in about 80 of 100 such samples. The test takes questions for independent, as the study does;
    the effect's interval resamples by `weights` (n, r) or, without them, sums its influence within `clusters` (n,).
    """
    from scipy.stats import t, ttest_1samp

    n = len(difference)
    deviation = float(difference.std(ddof=1)) if n > 1 else 0.0
    if deviation <= 1e-12:  # rounding
        return SignificanceTest("paired t-test", None, 1.0, "Cohen's d_z", None, None)
    statistic, p_value = ttest_1samp(difference, 0.0)
    d_z, error = standardized(difference.mean(), difference - difference.mean(), clusters)
    interval = bootstrap.normal_interval(d_z, error, level)
    if weights is not None:
        counts = weights.sum(0)
        means = difference @ weights / counts
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates = means / np.sqrt(difference**2 @ weights / counts - means**2)
        interval = bootstrap.percentile_interval(replicates, level)
    known = all(map(math.isfinite, interval))
    return SignificanceTest(
        test="paired t-test",
        statistic=float(statistic),
        p_value=float(p_value),
        effect="Cohen's d_z",
        effect_size=d_z if known else None,
        effect_size_ci=interval if known else None,
        smallest_detectable=float(t.ppf(1 - alpha / 2, n - 1) + t.ppf(0.8, n - 1)) * deviation / math.sqrt(n),
    )


def cluster_robust_t_test(
    difference: np.ndarray, clusters: np.ndarray, level: float, alpha: float
) -> tuple[SignificanceTest, Interval]:
    """The paired t-test, and the interval of the mean difference (n,), where only clusters (n,) are independent.

    Liang & Zeger's (1986) variance, corrected for G clusters, with G − 1 degrees of freedom (Cameron & Miller 2015).
    """
    from scipy.stats import t

    groups, middle = int(clusters.max()) + 1, float(difference.mean())
    test = f"cluster-robust t-test, {groups:,} clusters"
    error = math.sqrt(groups / (groups - 1)) * standard_error(difference - middle, clusters)
    if error <= 1e-12:
        return SignificanceTest(test, None, 1.0, "Cohen's d_z", None, None), (middle, middle)
    half = float(t.ppf((1 + level) / 2, groups - 1)) * error
    d_z, d_z_error = standardized(middle, difference - middle, clusters)
    tested = SignificanceTest(
        test=test,
        statistic=middle / error,
        p_value=float(2 * t.sf(abs(middle / error), groups - 1)),
        effect="Cohen's d_z",
        effect_size=d_z,
        effect_size_ci=bootstrap.normal_interval(d_z, d_z_error, level),
        smallest_detectable=float(t.ppf(1 - alpha / 2, groups - 1) + t.ppf(0.8, groups - 1)) * error,
    )
    return tested, (middle - half, middle + half)


def z_test(found: Estimate, level: float) -> SignificanceTest | None:
    """Two-sided: the value over its standard error, by resampling or influence. Exploratory only; none without spread.

    The effect size is the difference over the standard deviation of what a question adds to it (`standardized`).
    """
    from scipy.stats import norm

    if not math.isfinite(found.value) or not math.isfinite(found.standard_error) or found.standard_error <= 1e-12:
        return None
    z = found.value / found.standard_error
    size, error = found.standardized
    known = math.isfinite(size) and math.isfinite(error)
    return SignificanceTest(
        test="z-test",
        statistic=z,
        p_value=float(2 * norm.sf(abs(z))),
        effect="standardized difference",
        effect_size=size if known else None,
        effect_size_ci=bootstrap.normal_interval(size, error, level) if known else None,
    )


def mcnemar(pairs: Outcomes, clusters: np.ndarray | None, level: float) -> SignificanceTest:
    """The exact test that as many answers became wrong as became right (McNemar 1947).

    The effect is the share of those changed answers that became wrong, in [0, 1]: 0.5 is as many each way, and share /
    (1 − share) the conditional odds ratio. Its interval is that of Clopper & Pearson (1934).

    With `clusters` (n,) whole clusters change sign: under the hypothesis, a cluster that lost k more answers than it won might
    as well have won k more. With a question a cluster that is McNemar's test. The interval's number of changed answers is
    then divided by the design effect (Korn & Graubard 1998).
    """
    from scipy.stats import binomtest

    lost, won = int(pairs.lost.sum()), int(pairs.won.sum())
    changed = lost + won
    if clusters is None:
        test, p_value = "McNemar, exact", float(binomtest(lost, changed).pvalue) if changed else 1.0
    else:
        net = np.rint(np.bincount(clusters, pairs.lost - pairs.won)).astype(int)
        test, p_value = "McNemar, exact, signs of clusters", sign_flips(net[net != 0])
    return SignificanceTest(
        test=test,
        statistic=lost,
        p_value=p_value,
        effect=BECAME_WRONG,
        effect_size=lost / changed if changed else None,
        effect_size_ci=_clopper_pearson(lost / changed, _independent(pairs, clusters), level) if changed else None,
    )


def sign_flips(net: np.ndarray) -> float:
    """P(|Σ ±net| ≥ |Σ net|) over all equally likely signs, for integers (m,) that are not 0; 1 if there are none.

    Those of one size v give v · (2 B − their number) with a binomial B; the sizes' distributions are convolved.
    """
    from scipy.signal import fftconvolve
    from scipy.stats import binom

    total = np.ones(1)  # P of each sum from −span to span, in steps of 1
    for size, count in zip(*np.unique(np.abs(net), return_counts=True), strict=True):
        one = np.zeros(2 * size * count + 1)
        one[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        total = np.convolve(total, one) if min(len(total), len(one)) < 1000 else fftconvolve(total, one)
    span = len(total) // 2
    extreme = np.abs(np.arange(-span, span + 1)) >= abs(int(net.sum()))
    return float(np.clip(total[extreme].sum(), 0.0, 1.0))


def _independent(pairs: Outcomes, clusters: np.ndarray | None) -> float:
    """How many independent changed answers those of these clusters are worth: at most their own number."""
    changed = pairs.lost + pairs.won
    m, share = changed.sum(), pairs.lost.sum() / changed.sum()
    if clusters is None:
        return float(m)
    if share in (0.0, 1.0):  # nothing varies: as many as there are clusters of them
        return float(len(np.unique(clusters[changed > 0])))
    variance = (np.bincount(clusters, pairs.lost - share * changed) ** 2).sum() / m**2
    return float(min(m, share * (1 - share) / variance)) if variance > 0 else float(m)


def _clopper_pearson(share: float, n: float, level: float) -> tuple[float, float]:
    """Of a share of n trials, which need be no whole number."""
    from scipy.stats import beta

    hits, tail = share * n, (1 - level) / 2
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def agresti_min(pairs: Outcomes, level: float) -> tuple[float, float]:
    """The interval of a difference of paired proportions that stays wide where few answers or none flip (Agresti & Min 2005).

    The Wald interval after half a question is added to each of the four outcomes.
    """
    from scipy.stats import norm

    n, lost, won = len(pairs) + 2, pairs.lost.sum() + 0.5, pairs.won.sum() + 0.5
    middle = (won - lost) / n
    half = norm.ppf((1 + level) / 2) * math.sqrt(won + lost - (won - lost) ** 2 / n) / n
    return float(middle - half), float(middle + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm (1979), in the order given."""
    order = np.argsort(p_values)
    m = len(p_values)
    adjusted = np.maximum.accumulate([min(1.0, (m - rank) * p_values[i]) for rank, i in enumerate(order)])
    result = np.empty(m)
    result[order] = adjusted
    return result.tolist()


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted to control the false discovery rate (Benjamini & Hochberg 1995), in the order given."""
    from scipy.stats import false_discovery_control

    return false_discovery_control(p_values).tolist() if len(p_values) else []
