"""Does confidence put right answers before wrong ones? AUROC and the risk–coverage curve.

They are statistics of ranks and not of sums; their intervals come from the influence of each question.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitsure.metrics.confidence import Questions


@dataclass(frozen=True)
class Auroc:
    """P(a right answer's confidence > a wrong one's), ties half (Hanley & McNeil 1982), in [0, 1]; NaN without both."""

    interval: str = "influence"
    least: float = 0.0

    def value(self, asked: Questions) -> float:
        return self.value_and_influence(asked)[0]

    def value_and_influence(self, asked: Questions) -> tuple[float, np.ndarray]:
        """DeLong et al. (1988): a question's placement among those of the other kind."""
        right, n = asked.correct > 0, len(asked)
        if not right.any() or right.all():
            return math.nan, np.full(n, math.nan)
        placements = _placements(asked)
        area = float(placements[right].mean())
        return area, np.where(right, (placements - area) * n / right.sum(), (1 - placements - area) * n / (~right).sum())

    def count(self, asked: Questions) -> int:
        return len(asked)


@dataclass(frozen=True)
class Aurc:
    """The mean error rate over all coverages, the surest questions answered first (Geifman & El-Yaniv 2017), in [0, 1].

    excess: less the area of the best possible order (Geifman et al. 2019); for many questions that is e + (1 − e) ln(1 − e)
    for an error rate e, whose derivative the influence has.
    Questions of equal confidence count with their mean error, so that their order does not matter.
    """

    excess: bool = False
    interval: str = "influence"
    least: float = 0.0

    def value(self, asked: Questions) -> float:
        return self.value_and_influence(asked)[0]

    def value_and_influence(self, asked: Questions) -> tuple[float, np.ndarray]:
        """The influence is the derivative of the area by each question's weight."""
        order, wrong = _surest_first(asked)
        covered = np.arange(1, len(order) + 1)
        risk = np.cumsum(wrong) / covered
        value = risk.mean()
        later = lambda values: np.cumsum(values[::-1])[::-1]  # noqa: E731
        found = risk - risk.mean() + wrong * later(1 / covered) - later(risk / covered)
        if self.excess:
            value -= (np.maximum(covered - asked.correct.sum(), 0) / covered).mean()  # all right answers first
            e = min(wrong.mean(), 1 - 1e-9)
            found = found + math.log(1 - e) * (wrong - e)
        influence = np.empty(len(order))
        influence[order] = found - found.mean()
        return float(value), influence

    def count(self, asked: Questions) -> int:
        return len(asked)


def risk_coverage(asked: Questions) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (n,) from 1/n to 1 and the error rate of what is then answered."""
    _, wrong = _surest_first(asked)
    covered = np.arange(1, len(asked) + 1)
    return covered / len(asked), np.cumsum(wrong) / covered


def _surest_first(asked: Questions) -> tuple[np.ndarray, np.ndarray]:
    """The order, and the error of each question in it; equally sure ones have their mean error."""
    order = np.argsort(-asked.confidence, kind="stable")
    _, place, count = np.unique(-asked.confidence[order], return_inverse=True, return_counts=True)
    wrong = np.bincount(place, 1 - asked.correct[order]) / count
    return order, wrong[place]


def _placements(asked: Questions) -> np.ndarray:
    """(n,) the share of the questions of the other kind, right or wrong, that are less sure; ties half."""
    _, place = np.unique(asked.confidence, return_inverse=True)
    right = np.bincount(place, asked.correct)
    wrong = np.bincount(place) - right
    below = [(np.cumsum(side) - side / 2) / max(side.sum(), 1) for side in (right, wrong)]
    return np.where(asked.correct > 0, below[1][place], below[0][place])
