"""Intervals of the study's numbers: `paper_compat` once more, as functions of sums over questions, which can be resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from bitsure.metrics import paper_compat
from bitsure.metrics.calibration import scattered
from bitsure.metrics.paper_compat import BINS, RANGES, SCE_BINS
from bitsure.metrics.statistics import Estimate, Sums, estimate, mean


@dataclass(frozen=True)
class Answers:
    """What the notebook sees of N questions: p (N, K) probabilities, gold (N,) indices. Arrays have shape (N,)."""

    p: np.ndarray
    gold: np.ndarray

    def __len__(self) -> int:
        return len(self.gold)

    @cached_property
    def confidence(self) -> np.ndarray:
        return self.p.max(1)

    @cached_property
    def right(self) -> np.ndarray:
        return (self.p.argmax(1) == self.gold).astype(float)


def estimates(
    records: pa.Table, weights: np.ndarray | None, clusters: np.ndarray | None, minus: pa.Table | None = None
) -> dict[str, Estimate]:
    """The notebook's numbers, or by how much they are more than those of `minus`: its own values, bit for bit, with intervals.

    weights, clusters: of all records, as `statistics.estimate` takes them; the notebook keeps some of the questions.
    """
    rows = paper_compat.kept(records)
    asked, other = (found and Answers(*paper_compat.probabilities(found)) for found in (records, minus))
    weights, clusters = (None if one is None else one[rows] for one in (weights, clusters))
    found = estimate(statistics(asked.p.shape[1]), asked, weights, clusters, minus=other)
    now, was = (paper_compat.numbers(side.p, side.gold) if side else dict.fromkeys(found, 0.0) for side in (asked, other))
    return {name: replace(one, value=now[name] - was[name]) for name, one in found.items()}


def statistics(n_choices: int) -> dict[str, Sums]:
    """conf, conf_true, c_pos, c_neg, entropy, ace, mce; sce with more than two choices."""
    found = {
        "conf": mean(lambda a: a.confidence),
        "conf_true": mean(lambda a: a.p[np.arange(len(a)), a.gold]),
        "c_pos": mean(lambda a: a.confidence, among=lambda a: a.right),
        "c_neg": mean(lambda a: a.confidence, among=lambda a: 1 - a.right),
        "entropy": mean(_entropy),
    }
    if n_choices == 2:
        cells = _cells(BINS, _bin, lambda a: a.gold)
        return found | {"ace": _sum_of_gaps(cells), "mce": Sums(cells, _largest_signed, interval="basic")}
    ranges = _cells(RANGES * n_choices, lambda a: _range(a) * n_choices + a.gold)
    by_class = {n: _cells(n * n_choices, lambda a, n=n: _class_bin(a, n) * n_choices + a.gold) for n in (BINS, SCE_BINS)}
    return found | {
        "ace": Sums(ranges, lambda sums: np.abs(_gaps(sums)[0]).sum(-1) / (RANGES * n_choices), interval="basic", least=0.0),
        "mce": Sums(by_class[BINS], lambda sums: np.abs(_gaps(sums)[0]).max(-1), interval="basic", least=0.0),
        "sce": _sum_of_gaps(by_class[SCE_BINS], n_choices),
    }


def _entropy(asked: Answers) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return -(asked.p * np.log2(asked.p)).sum(1)


def _bin(asked: Answers) -> np.ndarray:
    """[i/100, (i+1)/100); a confidence of 1 is in none: BINS."""
    return np.searchsorted(np.arange(BINS + 1) / BINS, asked.confidence, side="right") - 1


def _range(asked: Answers) -> np.ndarray:
    """The first whose threshold is not exceeded, or range 0. In a resample the thresholds stay those of all questions."""
    thresholds = np.sort(asked.confidence)[np.arange(RANGES) * (len(asked) // RANGES)]
    return np.searchsorted(thresholds, asked.confidence, side="left") % RANGES


def _class_bin(asked: Answers, n_bins: int) -> np.ndarray:
    """The bins 1 … n, of which the notebook visits 0 … n − 1: the rest are n_bins."""
    return np.minimum(np.digitize(asked.confidence, np.arange(n_bins + 1) * (1 / n_bins)), n_bins)


def _cells(n: int, cell: Callable[[Answers], np.ndarray], outcome: Callable[[Answers], np.ndarray] = lambda a: a.right):
    """Features (N, 3 (n + 1)): 1, confidence and outcome in the question's cell; what is in none of the n has the last one."""

    def features(asked: Answers) -> csr_array:
        where = np.minimum(cell(asked), n)
        columns = (np.ones(len(asked)), asked.confidence, outcome(asked))
        return scattered(3 * (n + 1), *((where + i * (n + 1), column) for i, column in enumerate(columns)))

    return features


def _gaps(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence less mean outcome in each cell (0 where it is empty), its share of all questions, and its count."""
    counts, confidence, outcome = np.split(sums, 3, axis=-1)
    gaps = (confidence - outcome) / np.where(counts > 0, counts, 1.0)
    return gaps[..., :-1], (counts / counts.sum(-1, keepdims=True))[..., :-1], counts[..., :-1]


def _sum_of_gaps(cells: Callable[[Answers], csr_array], n_choices: int = 1) -> Sums:
    def of(sums: np.ndarray) -> np.ndarray:
        gaps, shares, _ = _gaps(sums)
        return (np.abs(gaps) * shares).sum(-1) / n_choices

    return Sums(cells, of, interval="basic", least=0.0)


def _largest_signed(sums: np.ndarray) -> np.ndarray:
    gaps, _, counts = _gaps(sums)
    return np.where(counts > 0, gaps, -np.inf).max(-1)
