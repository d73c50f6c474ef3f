"""The influence of each question on a function of sums, by leaving the question out.

Unlike a derivative, this is bounded where the function jumps, such as at a bin that holds one question or at a largest value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitsure.metrics.arrays import Features, FloatArray, IntArray

MOST_LEFT_OUT = 1000  # rows of sparse features; of more, similar ones are left out once
FAR = 0.5  # between the values of right and wrong answers
BLOCK = 4096  # rows that are left out at a time


def leave_one_out_influence(features: Features, function: Callable[[FloatArray], FloatArray]) -> tuple[float, FloatArray]:
    """Return θ = function(Σ features) and the influence (n − 1) (θ − θ without the question) of each question.

    For a mean that is the question's value less the mean. Of more than `MOST_LEFT_OUT` sparse rows, such as those of bins, the
    rows with equal columns and nearest values are represented by their mean.

    Args:
        features: What is summed, shape (n, m), dense or sparse.
        function: Takes sums, shape (r, m), and returns θ of each row, shape (r,).

    Returns:
        θ, and the influence, shape (n,); NaN where θ does not exist with or without the question.

    Reference: Efron & Tibshirani 1993, section 11.5 (the jackknife's influence values).
    """
    n, sums = features.shape[0], np.asarray(features.sum(0))
    value = float(function(sums[None])[0])
    rows, group = features, np.arange(n)
    if not isinstance(features, np.ndarray) and n > MOST_LEFT_OUT:
        rows, group = _merged(features)
    without = np.empty(rows.shape[0])
    for i in range(0, len(without), BLOCK):
        block = rows[i : i + BLOCK]
        without[i : i + BLOCK] = function(sums - (block if isinstance(block, np.ndarray) else block.toarray()))
    with np.errstate(invalid="ignore"):  # NaN where the number does not exist
        influence: FloatArray = (n - 1) * (value - without[group])
    return value, influence


def _merged(features: Features) -> tuple[Features, IntArray]:
    """Return mean rows of at most n / `MOST_LEFT_OUT` similar rows each, and the one each row belongs to, shape (n,).

    Rows whose numbers of entries differ are all kept.
    """
    from scipy.sparse import csr_array

    n, entries = features.shape[0], np.diff(features.indptr)
    if (entries != entries[0]).any():
        return features, np.arange(n)
    columns, values = (part.reshape(n, -1) for part in (features.indices, features.data))
    order = np.lexsort((*values.T, *columns.T))
    other_kind = (np.diff(columns[order], axis=0) != 0).any(1) | (np.abs(np.diff(values[order], axis=0)) > FAR).any(1)
    full = np.arange(1, n) % max(1, n // MOST_LEFT_OUT) == 0
    group = np.empty(n, dtype=np.int64)
    group[order] = np.concatenate([[0], np.cumsum(other_kind | full)])
    count = np.bincount(group)
    mean = csr_array((1 / count[group], (group, np.arange(n))), shape=(len(count), n))
    return mean @ features, group
