"""Intervals: questions resampled with replacement (Efron & Tibshirani 1993), or the influence of each question.

A statistic is a smooth function of sums over questions, θ = g(Σ_i f_i). A resample changes how often each question counts in
the sums; where there are too many questions for that, the influence function does the same in one pass: the variance of θ is
Σ_i (∇g · f_i)², the infinitesimal jackknife (Jaeckel 1972).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

MOST_RESAMPLED = 50_000  # questions; above, influence functions
REMEMBERED = 2**20  # weights of a task, 8 MB, of the TASKS that came last
TASKS = 32
AT_ONCE = 2**18  # draws


def resample_weights(n: int, resamples: int, seed: int, clusters: np.ndarray | None = None) -> np.ndarray:
    """How often each of n questions counts in each resample: (n, resamples) float64, not to be written to.

    clusters: (n,) of int from 0; questions of one cluster are drawn together. Both runs of a comparison, and each by itself,
    are resampled alike: the weights of up to about a thousand questions are remembered.
    """
    draw = _drawn if n * resamples <= REMEMBERED else _drawn.__wrapped__
    return draw(n, resamples, seed, None if clusters is None else clusters.astype(np.int64).tobytes())


@lru_cache(maxsize=TASKS)
def _drawn(n: int, resamples: int, seed: int, clusters: bytes | None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    codes = None if clusters is None else np.frombuffer(clusters, np.int64)
    units = n if codes is None else int(codes.max()) + 1
    weights, most = np.empty((units, resamples)), max(1, AT_ONCE // units)
    for first in range(0, resamples, most):  # as a multinomial would, about five times as fast
        some = min(most, resamples - first)
        drawn = rng.integers(0, units, (some, units)) + units * np.arange(some)[:, None]
        weights[:, first : first + some] = np.bincount(drawn.ravel(), minlength=some * units).reshape(some, units).T
    if codes is not None:
        weights = weights[codes]
    weights.setflags(write=False)
    return weights


def percentile_interval(replicates: np.ndarray, level: float) -> tuple[float, float]:
    """The central `level` of the replicates, NaNs (resamples in which a number does not exist) left out."""
    replicates = replicates[np.isfinite(replicates)]
    if not len(replicates):
        return float("nan"), float("nan")
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def basic_interval(value: float, replicates: np.ndarray, level: float) -> tuple[float, float]:
    """[2θ̂ − q_high, 2θ̂ − q_low]: for biased estimates, whose percentile interval misses the truth."""
    low, high = percentile_interval(replicates, level)
    return 2 * value - high, 2 * value - low


def normal_interval(value: float, standard_error: float, level: float) -> tuple[float, float]:
    """θ̂ ± z · standard error."""
    from scipy.special import ndtri  # the quantile of the normal distribution

    half = float(ndtri((1 + level) / 2)) * standard_error
    return value - half, value + half
