"""The smooth calibration error, which needs no bins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.bins import ConfidentAnswers, sparse_rows
from bitsure.metrics.statistic import SumStatistic

if TYPE_CHECKING:
    from scipy.sparse import csr_array

GRID = 400  # cells of confidence that the residuals are summed in
SCALES = np.geomspace(2e-3, 1.0, 25)  # bandwidths between which the fixed point is sought
DAMPING = np.exp(-((np.pi * np.arange(GRID) * SCALES[:, None]) ** 2) / 2)  # what each bandwidth leaves of a grid's waves


def smooth_calibration_error() -> SumStatistic[ConfidentAnswers]:
    """Return the smooth calibration error as a statistic: the fixed point σ* = ∫|r̂_σ*(t)| dt, in [0, 1].

    r̂_σ is the residual (correctness less confidence) smoothed by a Gaussian of bandwidth σ, reflected at 0 and 1: a product in
    the cosine domain.

    Reference: Błasiok & Nakkiran 2024.
    """
    return SumStatistic(_residuals, _fixed_point, "no single", 0.0, 1.0)


def _residuals(answers: ConfidentAnswers) -> csr_array:
    cell = np.minimum((GRID * answers.confidence).astype(int), GRID - 1)
    return sparse_rows(GRID + 1, (cell, answers.correct - answers.confidence), (GRID, np.ones(len(answers))))


def _fixed_point(sums: FloatArray) -> FloatArray:
    """Return σ* of each row of sums, shape (r, GRID + 1) → (r,).

    The error falls with the scale. Resamples cross it within a step or two of each other: from the scale where the first row
    crosses, each row steps on until it has crossed too.
    """
    from scipy.fft import dct, idct

    waves = dct(sums[..., :-1] / sums[..., -1:], overwrite_x=True)

    def error(rows: IntArray, scale: IntArray) -> FloatArray:
        """Return the error of some rows, each at its own scale."""
        smoothed = waves[rows]
        smoothed *= DAMPING[scale]
        smoothed = idct(smoothed, overwrite_x=True)
        total: FloatArray = np.abs(smoothed, out=smoothed).sum(-1)
        return total

    every, last = np.arange(len(SCALES)), len(SCALES) - 1
    scale = np.full(len(waves), np.clip((error(0 * every, every) > SCALES).sum() - 1, 0, last - 1))
    here, across = error(np.arange(len(waves)), scale), np.full(len(waves), np.nan)
    above = here > SCALES[scale]
    step = np.where(above, 1, -1)
    rows = np.flatnonzero(scale + step >= 0)
    while len(rows):
        to = scale[rows] + step[rows]
        there = error(rows, to)
        crossed = ((there > SCALES[to]) != above[rows]) | (to == last)  # none exceeds the largest scale, except by rounding
        across[rows[crossed]] = there[crossed]
        rows, there = rows[~crossed], there[~crossed]
        scale[rows] += step[rows]
        here[rows] = there
        rows = rows[scale[rows] + step[rows] >= 0]
    low = np.where(above, scale, scale + step)
    at_low, at_high = np.where(above, here, across), np.where(above, across, here)
    a, b = SCALES[low], SCALES[low + 1]
    crossing = a + (b - a) * np.clip((at_low - a) / np.maximum((at_low - a) - (at_high - b), 1e-12), 0, 1)
    return np.where(np.isnan(across), here, crossing)  # a row that is below even the smallest scale has its error there
