"""Intervals of the study's numbers: `paper_compat` once more, as functions of sums over questions, which can be resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from bitsure.metrics import paper_compat
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.bins import sparse_rows
from bitsure.metrics.estimation import estimate
from bitsure.metrics.paper_compat import BINS, RANGES, SCE_BINS
from bitsure.metrics.point_estimate import PointEstimate
from bitsure.metrics.statistic import SumStatistic, mean

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class NotebookAnswers:
    """What the study's notebook sees of N questions.

    Attributes:
        p: The choices' probabilities, shape (N, K).
        gold: The index of the right choice, shape (N,).
    """

    p: FloatArray
    gold: IntArray

    def __len__(self) -> int:
        return len(self.gold)

    @cached_property
    def confidence(self) -> FloatArray:
        """The largest probability, shape (N,)."""
        largest: FloatArray = self.p.max(1)
        return largest

    @cached_property
    def right(self) -> FloatArray:
        """1.0 where the most probable choice is the right one, else 0.0, shape (N,)."""
        return np.asarray(self.p.argmax(1) == self.gold, dtype=float)


def paper_estimates(
    records: pa.Table, weights: FloatArray | None, clusters: IntArray | None, minus: pa.Table | None = None
) -> dict[str, PointEstimate]:
    """Return the notebook's numbers with intervals, or how much larger they are than those of `minus`.

    The values are the notebook's own, bit for bit.

    Args:
        records: One task's records.
        weights: How often each record counts in each resample, as `estimation.estimate` takes it; the notebook keeps some of
            the questions.
        clusters: Each record's cluster, likewise.
        minus: The same task's records of another model.
    """
    rows = paper_compat.kept(records)
    answers = NotebookAnswers(*paper_compat.probabilities(records))
    other = None if minus is None else NotebookAnswers(*paper_compat.probabilities(minus))
    estimates = estimate(
        paper_metrics(answers.p.shape[1]),
        answers,
        None if weights is None else weights[rows],
        None if clusters is None else clusters[rows],
        minus=other,
    )
    now = paper_compat.paper_numbers(answers.p, answers.gold)
    if other is None:
        return {name: replace(result, value=now[name]) for name, result in estimates.items()}
    was = paper_compat.paper_numbers(other.p, other.gold)
    return {
        name: replace(result, value=now[name] - was[name], sides=(now[name], was[name])) for name, result in estimates.items()
    }


def paper_metrics(n_choices: int) -> dict[str, SumStatistic[NotebookAnswers]]:
    """Return conf, conf_true, c_pos, c_neg, entropy, ace and mce as statistics; sce with more than two choices."""
    metrics: dict[str, SumStatistic[NotebookAnswers]] = {
        "conf": mean(lambda a: a.confidence),
        "conf_true": mean(lambda a: a.p[np.arange(len(a)), a.gold]),
        "c_pos": mean(lambda a: a.confidence, among=lambda a: a.right),
        "c_neg": mean(lambda a: a.confidence, among=lambda a: 1 - a.right),
        "entropy": mean(_entropy),
    }
    if n_choices == 2:
        cells = _cell_sums(BINS, _bin, lambda a: a.gold)
        return metrics | {"ace": _sum_of_gaps(cells), "mce": SumStatistic(cells, _largest_signed, "widest")}
    ranges = _cell_sums(RANGES * n_choices, lambda a: _range(a) * n_choices + a.gold)
    by_class = {n: _cell_sums(n * n_choices, _class_cell(n, n_choices)) for n in (BINS, SCE_BINS)}

    def mean_gap(sums: FloatArray) -> FloatArray:
        total: FloatArray = np.abs(_gaps(sums)[0]).sum(-1)
        return total / (RANGES * n_choices)

    def largest_gap(sums: FloatArray) -> FloatArray:
        largest: FloatArray = np.abs(_gaps(sums)[0]).max(-1)
        return largest

    return metrics | {
        "ace": SumStatistic(ranges, mean_gap, "widest", least=0.0),
        "mce": SumStatistic(by_class[BINS], largest_gap, "widest", least=0.0),
        "sce": _sum_of_gaps(by_class[SCE_BINS], n_choices),
    }


def _entropy(answers: NotebookAnswers) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy: FloatArray = -(answers.p * np.log2(answers.p)).sum(1)
    return entropy


def _bin(answers: NotebookAnswers) -> IntArray:
    """Return the bin [i/100, (i+1)/100); a confidence of 1 is in none: BINS."""
    return np.searchsorted(np.arange(BINS + 1) / BINS, answers.confidence, side="right") - 1


def _range(answers: NotebookAnswers) -> IntArray:
    """Return the first range whose threshold is not exceeded, or 0. Resamples keep the thresholds of all questions."""
    thresholds = np.sort(answers.confidence)[np.arange(RANGES) * (len(answers) // RANGES)]
    return np.searchsorted(thresholds, answers.confidence, side="left") % RANGES


def _class_cell(n_bins: int, n_choices: int) -> Callable[[NotebookAnswers], IntArray]:
    """Return what gives each question's bin and class as one number.

    Of the bins 1 … n the notebook visits 0 … n − 1: the rest are n_bins.
    """

    def cell(answers: NotebookAnswers) -> IntArray:
        bins = np.minimum(np.digitize(answers.confidence, np.arange(n_bins + 1) * (1 / n_bins)), n_bins)
        return bins * n_choices + answers.gold

    return cell


def _cell_sums(
    n: int,
    cell: Callable[[NotebookAnswers], IntArray],
    outcome: Callable[[NotebookAnswers], FloatArray | IntArray] = lambda a: a.right,
) -> Callable[[NotebookAnswers], csr_array]:
    """Return features of shape (N, 3 (n + 1)): 1, confidence and outcome in the question's cell.

    What is in none of the n cells is in the last one.
    """

    def features(answers: NotebookAnswers) -> csr_array:
        where = np.minimum(cell(answers), n)
        columns = (np.ones(len(answers)), answers.confidence, outcome(answers))
        return sparse_rows(3 * (n + 1), *((where + i * (n + 1), column) for i, column in enumerate(columns)))

    return features


def _gaps(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return each cell's mean confidence less mean outcome (0 where it is empty), its share of all questions, its count."""
    counts, confidence, outcome = np.split(sums, 3, axis=-1)
    gaps = (confidence - outcome) / np.where(counts > 0, counts, 1.0)
    return gaps[..., :-1], (counts / counts.sum(-1, keepdims=True))[..., :-1], counts[..., :-1]


def _sum_of_gaps(cells: Callable[[NotebookAnswers], csr_array], n_choices: int = 1) -> SumStatistic[NotebookAnswers]:
    def weighted_gap(sums: FloatArray) -> FloatArray:
        gaps, shares, _ = _gaps(sums)
        total: FloatArray = (np.abs(gaps) * shares).sum(-1)
        return total / n_choices

    return SumStatistic(cells, weighted_gap, "widest", least=0.0)


def _largest_signed(sums: FloatArray) -> FloatArray:
    gaps, _, counts = _gaps(sums)
    largest: FloatArray = np.where(counts > 0, gaps, -np.inf).max(-1)
    return largest
