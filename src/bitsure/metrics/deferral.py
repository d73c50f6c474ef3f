"""Which questions go to the full model again, because the quantized one is least confident, and what an answer costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitsure.metrics.arrays import BoolArray, FloatArray, IntArray
from bitsure.metrics.ties import with_ties

SHARES = tuple(k / 10 for k in range(1, 10))  # of the questions, that go to the full model
NAMES = tuple(f"{share:.0%}".replace("%", "_percent") for share in SHARES)
FULL_BITS = 16  # of a weight in full precision
UNKNOWN_COST = 0.25  # of a quantized answer: 4 bits of 16


def defer_least_confident(confidence: FloatArray, fold: IntArray, shares: Sequence[float]) -> BoolArray:
    """Return which questions go to the full model so that about a given share of them does, the least confident ones.

    The thresholds come from the other folds.

    Args:
        confidence: The quantized model's confidence, shape (n,).
        fold: The fold of each question, shape (n,), from 0.
        shares: Shares of the questions, in (0, 1).

    Returns:
        Shape (n, len(shares)).
    """
    confidence = with_ties(confidence)
    return confidence[:, None] < deferral_thresholds(confidence, fold, shares)


def deferral_thresholds(confidence: FloatArray, fold: IntArray, shares: Sequence[float]) -> FloatArray:
    """Return the confidence below which about a given share of the questions lies, from the other folds.

    Args:
        confidence: A model's confidence, equal values made exactly so, shape (n,).
        fold: The fold of each question, shape (n,), from 0.
        shares: Shares of the questions, in (0, 1).

    Returns:
        Shape (n, len(shares)).
    """
    thresholds = np.empty((len(confidence), len(shares)))
    for k in range(int(fold.max()) + 1):
        others = fold != k if fold.max() else fold == k
        thresholds[fold == k] = np.quantile(confidence[others], shares)
    return thresholds


def cost_of_quantized(configured: float | None, bits_per_weight: float | None, baseline_bits: float | None = None) -> float:
    """Return the cost of an answer of the quantized model, where one of the full model costs 1.

    Args:
        configured: `metric.quantized_cost`; None to derive the cost.
        bits_per_weight: Bits of a quantized weight; None if unknown.
        baseline_bits: Bits of a weight of the model that it is compared with; None for full precision, which counts as 16.

    Returns:
        The configured cost; otherwise the ratio of the two models' bits, which are moved for an answer, at most 1; or a quarter
        if the bits are unknown.
    """
    if configured is not None:
        return configured
    return min(1.0, bits_per_weight / (baseline_bits or FULL_BITS)) if bits_per_weight else UNKNOWN_COST
