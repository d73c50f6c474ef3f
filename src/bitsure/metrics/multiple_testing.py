"""p-values adjusted for the number of tests in their family."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted to control the family-wise error rate, in the order given.

    Reference: Holm 1979.
    """
    order = np.argsort(p_values)
    m = len(p_values)
    adjusted = np.maximum.accumulate([min(1.0, (m - rank) * p_values[i]) for rank, i in enumerate(order)])
    result = np.empty(m)
    result[order] = adjusted
    return [float(p) for p in result]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted to control the false discovery rate, in the order given.

    Reference: Benjamini & Hochberg 1995.
    """
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values)] if len(p_values) else []
