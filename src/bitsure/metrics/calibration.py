"""Calibration: is the model right as often as it is sure?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from bitsure.metrics.confidence import Questions
from bitsure.metrics.statistics import Sums

CELLS = 400  # of the grid that the smooth error is computed on
SCALES = np.geomspace(2e-3, 1.0, 25)  # bandwidths between which its fixed point is sought
DAMPED = np.exp(-((np.pi * np.arange(CELLS) * SCALES[:, None]) ** 2) / 2)  # what each leaves of a grid's waves


@dataclass(frozen=True)
class Bins:
    """Edges of confidence bins, (b + 1,) from 0 to 1; a bin holds its lower edge, the last one 1 too."""

    edges: np.ndarray
    equal: bool = False  # of equal width: then bin = min(⌊b·c⌋, b − 1)

    @classmethod
    def uniform(cls, n_bins: int) -> Bins:
        return cls(np.arange(n_bins + 1) / n_bins, equal=True)

    @classmethod
    def quantile(cls, confidence: np.ndarray, n_bins: int) -> Bins:
        """Bins of about equally many of these confidences; fewer where many are equal."""
        inner = np.quantile(confidence, np.arange(1, n_bins) / n_bins)
        return cls(np.unique([0.0, *inner[(inner > 0) & (inner < 1)], 1.0]))

    def __len__(self) -> int:
        return len(self.edges) - 1

    def index(self, confidence: np.ndarray) -> np.ndarray:
        if self.equal:
            return np.minimum((len(self) * confidence).astype(int), len(self) - 1)
        return np.clip(np.searchsorted(self.edges, confidence, side="right") - 1, 0, len(self) - 1)

    def gaps(self, asked: Questions) -> csr_array:
        """(n, b + 1): correctness less confidence in the question's bin, and 1."""
        gap = (self.index(asked.confidence), asked.correct - asked.confidence)
        return scattered(len(self) + 1, gap, (len(self), np.ones(len(asked))))

    def table(self, asked: Questions) -> csr_array:
        """(n, 3 b): 1, confidence and correctness in the question's bin."""
        index, b = self.index(asked.confidence), len(self)
        return scattered(3 * b, (index, np.ones(len(asked))), (index + b, asked.confidence), (index + 2 * b, asked.correct))


def scattered(width: int, *columns: tuple[np.ndarray | int, np.ndarray]) -> csr_array:
    """(n, width): row i has each column's value i where that column's index i says."""
    values = np.stack([value for _, value in columns], axis=1)
    index = np.stack([np.broadcast_to(where, len(values)) for where, _ in columns], axis=1)
    starts = np.arange(len(values) + 1) * len(columns)
    return csr_array((values.ravel(), index.ravel(), starts), shape=(len(values), width))


def _shares(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the sums of `Bins.table`: counts, shares of all, mean confidence and accuracy a bin; empty bins have share 0."""
    counts, confidence, correct = np.split(sums, 3, axis=-1)
    some = np.where(counts > 0, counts, 1.0)
    return counts, counts / counts.sum(-1, keepdims=True), confidence / some, correct / some


def expected_calibration_error(bins: Bins) -> Sums:
    """Σ_b (n_b / n) |accuracy_b − confidence_b| (Naeini et al. 2015; Guo et al. 2017, eq. 3), in [0, 1].

    The plug-in estimate: biased upward, the more so the fewer questions a bin has.
    """
    return Sums(bins.gaps, lambda sums: np.abs(sums[..., :-1]).sum(-1) / sums[..., -1], interval="basic", least=0.0)


def debiased_squared_error(bins: Bins) -> Sums:
    """Σ_b w_b [(ȳ_b − c̄_b)² − ȳ_b (1 − ȳ_b) / (n_b − 1)] (Kumar et al. 2019, sec. 4), in about [0, 1]; may be negative.

    A bin of one question says nothing of its variance and counts 0.
    """

    def of(sums: np.ndarray) -> np.ndarray:
        counts, shares, confidence, accuracy = _shares(sums)
        noise = accuracy * (1 - accuracy) / np.maximum(counts - 1, 1)
        return (shares * np.where(counts > 1, (accuracy - confidence) ** 2 - noise, 0.0)).sum(-1)

    return Sums(bins.table, of, interval="normal")  # its replicates centre on the plug-in


def rms_calibration_error(bins: Bins) -> Sums:
    """√(Σ_b w_b (ȳ_b − c̄_b)²) (Hendrycks et al. 2019), in [0, 1]."""

    def of(sums: np.ndarray) -> np.ndarray:
        _, shares, confidence, accuracy = _shares(sums)
        return np.sqrt((shares * (accuracy - confidence) ** 2).sum(-1))

    return Sums(bins.table, of, interval="basic", least=0.0)


def maximum_calibration_error(bins: Bins) -> Sums:
    """max_b |ȳ_b − c̄_b| (Naeini et al. 2015), in [0, 1]."""

    def of(sums: np.ndarray) -> np.ndarray:
        counts, _, confidence, accuracy = _shares(sums)
        return np.where(counts > 0, np.abs(accuracy - confidence), 0.0).max(-1)

    return Sums(bins.table, of, interval="basic", least=0.0)


def smooth_calibration_error() -> Sums:
    """The fixed point σ* = ∫|r̂_σ*(t)| dt of Błasiok & Nakkiran (2024), in [0, 1].

    r̂_σ is the residual y − c smoothed by a Gaussian of bandwidth σ, reflected at 0 and 1 (a product in the cosine domain).
    """

    def features(asked: Questions) -> csr_array:
        cell = np.minimum((CELLS * asked.confidence).astype(int), CELLS - 1)
        return scattered(CELLS + 1, (cell, asked.correct - asked.confidence), (CELLS, np.ones(len(asked))))

    def of(sums: np.ndarray) -> np.ndarray:
        from scipy.fft import dct, idct

        waves = dct(sums[..., :-1] / sums[..., -1:], overwrite_x=True)

        def error(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
            """Of these rows, each at the scale of its number."""
            smoothed = waves[rows]
            smoothed *= DAMPED[scale]
            smoothed = idct(smoothed, overwrite_x=True)
            return np.abs(smoothed, out=smoothed).sum(-1)

        # the error falls with the scale; resamples cross it within a step or two of each other: from where the first one does,
        # each goes on until it has crossed it, too
        every, last = np.arange(len(SCALES)), len(SCALES) - 1
        scale = np.full(len(waves), np.clip((error(0 * every, every) > SCALES).sum() - 1, 0, last - 1))
        here, across = error(np.arange(len(waves)), scale), np.full(len(waves), np.nan)
        above = here > SCALES[scale]
        step = np.where(above, 1, -1)
        rows = np.flatnonzero(scale + step >= 0)
        while len(rows):
            to = scale[rows] + step[rows]
            there = error(rows, to)
            crossed = ((there > SCALES[to]) != above[rows]) | (to == last)  # none is above the largest, but by its last digit
            across[rows[crossed]] = there[crossed]
            rows, there = rows[~crossed], there[~crossed]
            scale[rows] += step[rows]
            here[rows] = there
            rows = rows[scale[rows] + step[rows] >= 0]
        low = np.where(above, scale, scale + step)
        at_low, at_high = np.where(above, here, across), np.where(above, across, here)
        a, b = SCALES[low], SCALES[low + 1]
        crossing = a + (b - a) * np.clip((at_low - a) / np.maximum((at_low - a) - (at_high - b), 1e-12), 0, 1)
        return np.where(np.isnan(across), here, crossing)  # not above even the smallest scale: the error there

    return Sums(features, of, interval="basic", least=0.0)


def classwise_calibration_error(bins: Bins) -> Sums:
    """The expected calibration error of each choice's own probability, averaged over the choices (Kull et al. 2019), in [0, 1].

    For questions that all have the same choices, with one right one each: elsewhere a choice's position means nothing.
    """

    def features(asked: Questions) -> csr_array:
        p, right = asked.p.reshape(len(asked), -1), asked.gold.reshape(len(asked), -1)
        k, b = p.shape[1], len(bins)
        gaps = [(bins.index(p[:, i]) + i * b, right[:, i] - p[:, i]) for i in range(k)]
        return scattered(k * b + 1, *gaps, (k * b, np.full(len(asked), float(k))))

    return Sums(features, lambda sums: np.abs(sums[..., :-1]).sum(-1) / sums[..., -1], interval="basic", least=0.0)


def brier_parts(bins: Bins) -> dict[str, Sums]:
    """Murphy's (1973) parts of the Brier score of "the top choice is right" given the confidence's bin.

    reliability Σ w_b (c̄_b − ȳ_b)² − resolution Σ w_b (ȳ_b − ȳ)² + uncertainty ȳ (1 − ȳ).
    """

    def part(which: str) -> Callable[[np.ndarray], np.ndarray]:
        def of(sums: np.ndarray) -> np.ndarray:
            _, shares, confidence, accuracy = _shares(sums)
            overall = (shares * accuracy).sum(-1)
            return {
                "reliability": (shares * (confidence - accuracy) ** 2).sum(-1),
                "resolution": (shares * (accuracy - overall[..., None]) ** 2).sum(-1),
                "uncertainty": overall * (1 - overall),
            }[which]

        return of

    return {
        f"brier_{which}": Sums(bins.table, part(which), interval="percentile" if which == "uncertainty" else "basic", least=0.0)
        for which in ("reliability", "resolution", "uncertainty")
    }


def errors_if_calibrated(confidence: np.ndarray, bins: Bins, draws: int, seed: int) -> np.ndarray:
    """(draws,) plug-in errors of a perfectly calibrated model with these confidences: correctness drawn from Bernoulli(c)."""
    rng, index = np.random.default_rng(seed), bins.index(confidence)
    errors = [
        np.abs(np.bincount(index, (rng.random(len(confidence)) < confidence) - confidence, len(bins))).sum()
        for _ in range(draws)
    ]
    return np.array(errors) / len(confidence)


@dataclass(frozen=True)
class ReliabilityDiagram:
    """A row a bin, shape (b,): how many questions, their mean confidence and accuracy (NaN in an empty bin)."""

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray, bins: Bins) -> ReliabilityDiagram:
    """The bins that `expected_calibration_error` sums over."""
    index = bins.index(confidence)
    count = np.bincount(index, minlength=len(bins))
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, confidence, len(bins)) / count
        accuracy = np.bincount(index, correct, len(bins)) / count
    return ReliabilityDiagram(count, mean_confidence, accuracy)
