"""Intervals by resampling questions with replacement, and from standard errors.

A statistic is a function of sums over questions, θ = g(Σ_i f_i). A resample changes how often each question counts in the sums
(Efron & Tibshirani 1993). Where there are too many questions for that, the standard error comes from leaving each one out.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from bitsure.metrics.arrays import FloatArray, IntArray

MOST_RESAMPLED = 50_000  # questions; influence functions above
MOST_REMEMBERED = 2**20  # weights of a task, 8 MB; those of the last TASKS tasks are kept
TASKS = 32
DRAWS_AT_ONCE = 2**18


def resample_weights(n: int, resamples: int, seed: int, clusters: IntArray | None = None) -> FloatArray:
    """Return how often each question counts in each resample.

    Both runs of a comparison, and each by itself, are resampled alike: the weights of up to about a thousand questions are
    remembered.

    Args:
        n: Number of questions.
        resamples: Number of resamples, r.
        seed: Seed of the draws.
        clusters: Each question's cluster, shape (n,), from 0; questions of one cluster are drawn together.

    Returns:
        Whole numbers, shape (n, r), read-only.
    """
    draw = _draw if n * resamples <= MOST_REMEMBERED else _draw.__wrapped__
    return draw(n, resamples, seed, None if clusters is None else clusters.astype(np.int64).tobytes())


@lru_cache(maxsize=TASKS)
def _draw(n: int, resamples: int, seed: int, clusters: bytes | None) -> FloatArray:
    rng = np.random.default_rng(seed)
    codes = None if clusters is None else np.frombuffer(clusters, np.int64)
    units = count_units(n, codes)
    most = max(1, DRAWS_AT_ONCE // units)
    weights: FloatArray = np.empty((units, resamples))
    for first in range(0, resamples, most):  # the same distribution as a multinomial, about five times as fast
        count = min(most, resamples - first)
        drawn = rng.integers(0, units, (count, units)) + units * np.arange(count)[:, None]
        weights[:, first : first + count] = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).T
    if codes is not None:
        weights = weights[codes]
    weights.setflags(write=False)
    return weights


def count_units(n: int, clusters: IntArray | None) -> int:
    """Return how many clusters n questions are in; n if every one is alone.

    Args:
        n: Number of questions.
        clusters: Each question's cluster, shape (n,), from 0 without gaps; None if every question is alone.
    """
    return n if clusters is None else int(clusters.max()) + 1


def percentile_interval(replicates: FloatArray, level: float) -> tuple[float, float]:
    """Return the central part of the replicates; NaN if there are none.

    Args:
        replicates: The statistic under resampling, shape (r,); resamples in which it does not exist (NaN) are left out.
        level: The confidence level, in (0, 1).

    Reference: Efron & Tibshirani 1993, chapter 13.
    """
    replicates = replicates[np.isfinite(replicates)]
    if not len(replicates):
        return float("nan"), float("nan")
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def basic_interval(value: float, replicates: FloatArray, level: float) -> tuple[float, float]:
    """Return [2θ̂ − q_high, 2θ̂ − q_low], for biased estimates, whose percentile interval misses the truth.

    Reference: Davison & Hinkley 1997, equation 5.6.
    """
    low, high = percentile_interval(replicates, level)
    return 2 * value - high, 2 * value - low


def normal_interval(value: float, standard_error: float, level: float) -> tuple[float, float]:
    """Return θ̂ ± z · standard error, with z the normal quantile of (1 + level) / 2."""
    return t_interval(value, standard_error, math.inf, level)


def t_interval(value: float, standard_error: float, freedom: float, level: float) -> tuple[float, float]:
    """Return θ̂ ± t · standard error, with Student's t of some degrees of freedom; infinitely many are the normal quantile."""
    half = t_quantile(freedom, level) * standard_error
    return value - half, value + half


def t_quantile(freedom: float, level: float) -> float:
    """Return the quantile (1 + level) / 2 of Student's t; NaN without any degree of freedom."""
    from scipy.special import ndtri, stdtrit

    if math.isinf(freedom):
        return float(ndtri((1 + level) / 2))
    return float(stdtrit(freedom, (1 + level) / 2)) if freedom > 0 else math.nan
