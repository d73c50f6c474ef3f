"""Confidence bins: their edges, sums over them, and the reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.ties import with_ties

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class ConfidentAnswers(Protocol):
    """n answers of which the confidence and whether they are right is known, shape (n,) each."""

    @property
    def confidence(self) -> FloatArray:
        """The probability of the predicted choice, in [0, 1]."""

    @property
    def correct(self) -> FloatArray:
        """1 where the prediction is right, else 0; or its expectation."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Bins:
    """Confidence bins.

    Attributes:
        edges: Their edges from 0 to 1, shape (b + 1,); a bin holds its lower edge, the last one 1 too.
        equal: Whether they are of equal width: then a confidence c is in bin min(⌊b·c⌋, b − 1).
    """

    edges: FloatArray
    equal: bool = False

    @classmethod
    def uniform(cls, n_bins: int) -> Bins:
        """Return bins of equal width."""
        return cls(np.arange(n_bins + 1) / n_bins, equal=True)

    @classmethod
    def quantile(cls, confidence: FloatArray, n_bins: int) -> Bins:
        """Return bins that hold about equally many of some confidences, shape (n,); fewer bins where many are equal."""
        inner = np.quantile(with_ties(confidence), np.arange(1, n_bins) / n_bins)
        return cls(np.unique([0.0, *inner[(inner > 0) & (inner < 1)], 1.0]))

    def __len__(self) -> int:
        return len(self.edges) - 1

    def index(self, confidence: FloatArray) -> IntArray:
        """Return the bin of each confidence, shape (n,)."""
        if self.equal:
            index: IntArray = np.minimum((len(self) * confidence).astype(int), len(self) - 1)
            return index
        return np.clip(np.searchsorted(self.edges, confidence, side="right") - 1, 0, len(self) - 1)

    def gaps(self, answers: ConfidentAnswers) -> csr_array:
        """Return each answer's correctness less confidence in its bin's column, and 1 in the last, shape (n, b + 1)."""
        gap = (self.index(answers.confidence), answers.correct - answers.confidence)
        return sparse_rows(len(self) + 1, gap, (len(self), np.ones(len(answers))))

    def table(self, answers: ConfidentAnswers) -> csr_array:
        """Return 1, the confidence and the correctness of each answer in its bin's columns, shape (n, 3 b)."""
        index, b = self.index(answers.confidence), len(self)
        ones = np.ones(len(answers))
        return sparse_rows(3 * b, (index, ones), (index + b, answers.confidence), (index + 2 * b, answers.correct))


def sparse_rows(width: int, *entries: tuple[IntArray | int, FloatArray | IntArray]) -> csr_array:
    """Return a sparse array of n rows with one value for each entry in every row.

    Args:
        width: Number of columns.
        entries: Pairs of columns and values, shape (n,) each: row i has value i in column i. One column may stand for all rows.

    Returns:
        Shape (n, width).
    """
    from scipy.sparse import csr_array

    values = np.stack([value for _, value in entries], axis=1)
    index = np.stack([np.broadcast_to(column, len(values)) for column, _ in entries], axis=1)
    starts = np.arange(len(values) + 1) * len(entries)
    return csr_array((values.ravel(), index.ravel(), starts), shape=(len(values), width))


@dataclass(frozen=True)
class ReliabilityDiagram:
    """Accuracy against confidence by bin, shape (b,) each.

    Attributes:
        count: Number of questions.
        confidence: Their mean confidence; NaN in an empty bin.
        accuracy: The share that is right; NaN in an empty bin.
    """

    count: IntArray
    confidence: FloatArray
    accuracy: FloatArray


def reliability_diagram(confidence: FloatArray, correct: FloatArray, bins: Bins) -> ReliabilityDiagram:
    """Return the bins that `expected_calibration_error` sums over.

    Args:
        confidence: Probability of the predicted choice, shape (n,), in [0, 1].
        correct: 1 where the prediction is right, else 0, shape (n,).
        bins: The bins.
    """
    index = bins.index(confidence)
    count = np.bincount(index, minlength=len(bins))
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, confidence, len(bins)) / count
        accuracy = np.bincount(index, correct, len(bins)) / count
    return ReliabilityDiagram(count, mean_confidence, accuracy)
