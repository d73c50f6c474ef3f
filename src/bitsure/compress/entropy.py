"""Shannon's entropy of integer codes: the fewest bits for a coder that knows how often each code occurs and no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Entropy:
    """Bits a code, the mean over units (channels, groups) weighted by their number of codes."""

    value: float
    """Plug-in estimate, in [0, bits]; at most log2 of a unit's number of codes, so that it is too low for small units."""
    corrected: float
    """The same with the correction of Miller (1955) and Madow, in [0, bits]."""
    units: int
    """The number of units."""


def entropy(codes: NDArray[Any], bits: int, units: NDArray[np.int64] | None = None) -> Entropy:
    """Return the entropy of codes, given which unit each belongs to.

    H = −Σ_u (n_u/n) Σ_k p_uk log2 p_uk, with p_uk the share of code k in unit u. A unit in which k codes occur adds
    (k − 1) / (2 n ln 2) to the corrected value.

    Args:
        codes: Integers in [0, 2**bits), any shape.
        bits: Bits of a code.
        units: Integers ≥ 0 that broadcast to the codes, the unit of each; memory grows with the largest. None: one unit.

    Reference: Shannon 1948; Miller 1955.
    """
    levels = 2**bits
    cells = (codes if units is None else units * levels + codes).ravel()
    table = np.bincount(cells, minlength=-(-(int(cells.max()) + 1) // levels) * levels).reshape(-1, levels)
    counts = table[table.any(1)]
    value = float(_n_log2_n(counts.sum(1)) - _n_log2_n(counts)) / codes.size
    bias = ((counts > 0).sum(1) - 1).sum() / (2 * np.log(2) * codes.size)
    return Entropy(min(max(value, 0.0), bits), min(max(value, 0.0) + float(bias), bits), len(counts))


def _n_log2_n(counts: NDArray[Any]) -> Any:
    positive = counts[counts > 0].astype(float)
    return (positive * np.log2(positive)).sum()
