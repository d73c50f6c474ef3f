"""Intervals from resampling questions with replacement (Efron & Tibshirani 1993)."""

from __future__ import annotations

import numpy as np


def resample_weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n questions is drawn in each resample: (resamples, n) float64, every row sums to n."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)


def percentile_interval(replicates: np.ndarray, level: float) -> tuple[float, float]:
    """The central `level` of the replicates, NaNs (resamples in which a number does not exist) left out."""
    replicates = replicates[np.isfinite(replicates)]
    if not len(replicates):
        return float("nan"), float("nan")
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def basic_interval(value: float, replicates: np.ndarray, level: float) -> tuple[float, float]:
    """[2θ̂ − q_high, 2θ̂ − q_low], clipped at 0: for upward-biased estimates ≥ 0, whose percentile interval misses the truth."""
    low, high = percentile_interval(replicates, level)
    return max(0.0, 2 * value - high), max(0.0, 2 * value - low)
