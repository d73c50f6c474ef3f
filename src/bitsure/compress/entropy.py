"""Shannon's entropy of integer codes: the fewest bits that a coder needs which knows how often each code occurs and no more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Entropy:
    """Bits a code, the mean over units (channels, groups) weighted by how many codes each has."""

    value: float  # plug-in, in [0, bits]; at most log2 of a unit's codes, so that small units look better than they are
    corrected: float  # with the correction of Miller (1955) and Madow, in [0, bits]
    units: int  # how many there are


def entropy(codes: np.ndarray, bits: int, units: np.ndarray | None = None) -> Entropy:
    """The entropy of codes, integers in [0, 2**bits), given which unit each belongs to; without units, of all together.

    units: integers ≥ 0 that broadcast to the codes; memory grows with the largest.

    H = −Σ_u (n_u/n) Σ_k p_uk log2 p_uk (Shannon 1948) with p_uk the share of code k in unit u. A unit in which k codes
    occur adds (k − 1) / (2 n ln 2) to the corrected value.
    """
    levels = 2**bits
    cells = (codes if units is None else units * levels + codes).ravel()
    counts = np.bincount(cells, minlength=-(-(int(cells.max()) + 1) // levels) * levels).reshape(-1, levels)
    counts = counts[counts.any(1)]
    value = float(_n_log2_n(counts.sum(1)) - _n_log2_n(counts)) / codes.size
    bias = ((counts > 0).sum(1) - 1).sum() / (2 * np.log(2) * codes.size)
    return Entropy(min(max(value, 0.0), bits), min(max(value, 0.0) + float(bias), bits), len(counts))


def _n_log2_n(counts: np.ndarray) -> float:
    some = counts[counts > 0].astype(float)
    return (some * np.log2(some)).sum()
