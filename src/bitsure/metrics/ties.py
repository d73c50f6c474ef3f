"""Which numbers are equal but for rounding; statistics of ranks must not tell them apart."""

from __future__ import annotations

import numpy as np

from bitsure.metrics.arrays import FloatArray

ROUNDING = 1e-13  # what a probability in float64 may be off by, for log-probabilities of some hundred nats


def with_ties(values: FloatArray) -> FloatArray:
    """Return values in which those that differ by rounding alone are equal.

    The softmax of the same log-probabilities in another order, or of all of them shifted, differs in the last digits. Without
    this step the order of rows or of choices would decide which of two equally confident questions ranks higher.

    Args:
        values: Probabilities or differences of them, shape (n,).

    Returns:
        Each value's smallest neighbour in a chain of steps of at most `ROUNDING`, shape (n,).
    """
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    first = np.concatenate([[True], np.diff(ascending) > ROUNDING])[: len(values)]
    result = np.empty_like(ascending)
    result[order] = ascending[first][np.cumsum(first) - 1]
    return result
