"""Does confidence put right answers before wrong ones? AUROC and the risk–coverage curve."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitsure.metrics.confidence import Questions

ROWS = 64  # resamples at once: bounds the memory


@dataclass(frozen=True)
class Auroc:
    """P(a right answer's confidence > a wrong one's), ties half (Hanley & McNeil 1982), in [0, 1]; NaN without both."""

    biased: bool = False
    least: float = 0.0

    def values(self, asked: Questions, weights: np.ndarray) -> np.ndarray:
        order, groups = _ties(asked.confidence)
        right = asked.correct[order]
        values = []
        for some in np.split(weights[:, order], range(ROWS, len(weights), ROWS)):
            positive, negative = (np.add.reduceat(some * side, groups, axis=1) for side in (right, 1 - right))
            below = np.cumsum(negative, axis=1) - negative / 2
            pairs = positive.sum(1) * negative.sum(1)
            values.append(np.where(pairs > 0, (positive * below).sum(1) / np.where(pairs > 0, pairs, 1), np.nan))
        return np.concatenate(values)

    def influence(self, asked: Questions) -> np.ndarray:
        """DeLong et al. (1988): a question's placement among those of the other kind."""
        order, groups = _ties(asked.confidence)
        right = asked.correct[order]
        sizes = np.diff([*groups, len(order)])
        positive, negative = (np.add.reduceat(side, groups) for side in (right, 1 - right))
        n, n_right = len(order), right.sum()
        below = np.repeat((np.cumsum(negative) - negative / 2) / (n - n_right), sizes)
        above = np.repeat((n_right - np.cumsum(positive) + positive / 2) / n_right, sizes)
        area = (below * right).sum() / n_right
        influence = np.empty(n)
        influence[order] = np.where(right > 0, (below - area) * n / n_right, (above - area) * n / (n - n_right))
        return influence

    def count(self, asked: Questions) -> int:
        return len(asked)


@dataclass(frozen=True)
class Aurc:
    """The mean error rate over all coverages, the surest questions answered first (Geifman & El-Yaniv 2017), in [0, 1].

    excess: less the area of the best possible order, e + (1 − e) ln(1 − e) for an error rate e (Geifman et al. 2019).
    Questions of equal confidence count with their mean error, so that their order does not matter.
    """

    excess: bool = False
    biased: bool = False
    least: float = 0.0

    def values(self, asked: Questions, weights: np.ndarray) -> np.ndarray:
        order, groups = _ties(-asked.confidence)
        sizes = np.diff([*groups, len(order)])
        wrong = 1 - asked.correct[order]
        values = []
        for some in np.split(weights[:, order], range(ROWS, len(weights), ROWS)):
            errors = some * wrong
            if len(groups) < len(order):
                held = np.add.reduceat(some, groups, axis=1)
                share = np.add.reduceat(errors, groups, axis=1) / np.where(held > 0, held, 1)
                errors = some * np.repeat(share, sizes, axis=1)
            covered, total = np.cumsum(some, axis=1), some.sum(1)
            risk = np.cumsum(errors, axis=1) / np.where(covered > 0, covered, 1)
            area = (some * risk).sum(1) / total
            values.append(area - _best_area(errors.sum(1) / total) if self.excess else area)
        return np.concatenate(values)

    def influence(self, asked: Questions) -> np.ndarray:
        """The derivative of the area by each question's weight; ties are taken in order."""
        order, _ = _ties(-asked.confidence)
        wrong = 1 - asked.correct[order]
        n = len(order)
        covered = np.arange(1, n + 1)
        risk = np.cumsum(wrong) / covered
        later = lambda values: np.cumsum(values[::-1])[::-1]  # noqa: E731
        found = risk - risk.mean() + wrong * later(1 / covered) - later(risk / covered)
        if self.excess:
            e = min(wrong.mean(), 1 - 1e-9)
            found = found + math.log(1 - e) * (wrong - e)
        influence = np.empty(n)
        influence[order] = found - found.mean()
        return influence

    def count(self, asked: Questions) -> int:
        return len(asked)


def risk_coverage(asked: Questions) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (n,) from 1/n to 1 and the error rate of what is then answered."""
    wrong = 1 - asked.correct[np.argsort(-asked.confidence, kind="stable")]
    covered = np.arange(1, len(asked) + 1)
    return covered / len(asked), np.cumsum(wrong) / covered


def _best_area(error: np.ndarray) -> np.ndarray:
    rest = np.maximum(1 - error, 1e-300)
    return error + rest * np.log(rest)


def _ties(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts values, and where each run of equal ones begins in it."""
    order = np.argsort(values, kind="stable")
    return order, np.flatnonzero(np.diff(values[order], prepend=-np.inf) > 0)
