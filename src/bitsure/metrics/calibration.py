"""Calibration: is the model right as often as it is sure? Binned by confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def bin_index(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    """The equal-width bin of each confidence in [0, 1]: min(⌊n_bins·c⌋, n_bins − 1), so that 1 falls into the last."""
    return np.minimum((n_bins * confidence).astype(int), n_bins - 1)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray, n_bins: int) -> np.ndarray:
    """Σ_b (n_b / n) |accuracy_b − confidence_b| (Naeini et al. 2015; Guo et al. 2017, eq. 3), in [0, 1].

    confidence, correct: (n,); weights: (r, n), how often each question counts in each of r resamples. Returns (r,).
    The plug-in estimate: biased upward, the more so the fewer questions a bin has.
    """
    members = np.eye(n_bins)[bin_index(confidence, n_bins)]
    return np.abs(weights @ (members * (correct - confidence)[:, None])).sum(1) / weights.sum(1)


def error_if_calibrated(confidence: np.ndarray, n_bins: int, draws: int, seed: int) -> float:
    """The mean plug-in error of a perfectly calibrated model with these confidences: correctness drawn from Bernoulli(c)."""
    rng = np.random.default_rng(seed)
    gaps = (rng.random((draws, len(confidence))) < confidence) - confidence
    sums = np.abs(gaps @ np.eye(n_bins)[bin_index(confidence, n_bins)])
    return float(sums.sum(1).mean() / len(confidence))


@dataclass(frozen=True)
class ReliabilityDiagram:
    """A row a bin, shape (n_bins,): how many questions, their mean confidence and accuracy (NaN in an empty bin)."""

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray, n_bins: int) -> ReliabilityDiagram:
    """The bins that `expected_calibration_error` sums over."""
    index = bin_index(confidence, n_bins)
    count = np.bincount(index, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, confidence, n_bins) / count
        accuracy = np.bincount(index, correct, n_bins) / count
    return ReliabilityDiagram(count, mean_confidence, accuracy)
