"""Does confidence rank right answers above wrong ones? AUROC and the risk–coverage curve.

They are statistics of ranks and not of sums; their intervals come from the influence of each question.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.statistic import IntervalKind, Statistic


@dataclass(frozen=True)
class Auroc(Statistic[QuestionSet]):
    """P(a right answer's confidence > a wrong one's), ties half, in [0, 1]; NaN without answers of both kinds.

    Reference: Hanley & McNeil 1982.
    """

    interval: IntervalKind = "influence"
    least, most = 0.0, 1.0

    def value_and_influence(self, questions: QuestionSet) -> tuple[float, FloatArray]:
        """Return the area, and each question's placement among those of the other kind (DeLong et al. 1988)."""
        right, n = questions.correct > 0, len(questions)
        if not right.any() or right.all():
            return math.nan, np.full(n, math.nan)
        placements = _placements(questions)
        area = math.fsum(placements[right]) / int(right.sum())  # exact, and so the same in every order
        return area, np.where(right, (placements - area) * n / right.sum(), (1 - placements - area) * n / (~right).sum())


@dataclass(frozen=True)
class Aurc(Statistic[QuestionSet]):
    """The mean error rate over all coverages, the most confident questions answered first, in [0, 1].

    Questions of equal confidence count with their mean error, so that their order does not matter.

    Attributes:
        excess: Subtract the area of the best possible order (Geifman et al. 2019); for many questions that is
            e + (1 − e) ln(1 − e) for an error rate e, whose derivative the influence has.

    Reference: Geifman & El-Yaniv 2017.
    """

    excess: bool = False
    interval, least, most = "influence", 0.0, 1.0

    def value_and_influence(self, questions: QuestionSet) -> tuple[float, FloatArray]:
        """Return the area and its derivative by each question's weight.

        Equally confident questions take the mean of the derivatives over the places that they share, each with its own error.
        """
        order, place, wrong = _most_confident_first(questions)
        covered, own = np.arange(1, len(order) + 1), 1 - questions.correct
        risk = np.cumsum(wrong) / covered
        value, e = risk.mean(), own.sum() / len(own)
        by_error = _mean_by_place(_sum_of_later(1 / covered), place)
        influence = np.empty(len(order))
        influence[order] = _mean_by_place(risk - _sum_of_later(risk / covered), place) + own[order] * by_error
        if self.excess:
            value -= (np.maximum(covered - questions.correct.sum(), 0) / covered).mean()  # all right answers first
            influence += math.log(1 - min(e, 1 - 1e-9)) * own
        return float(value), influence - influence.mean()


def risk_coverage(questions: QuestionSet) -> tuple[FloatArray, FloatArray]:
    """Return the risk–coverage curve, the most confident questions answered first.

    Returns:
        Coverage from 1/n to 1, and the error rate of what is then answered, shape (n,) each.
    """
    _, _, wrong = _most_confident_first(questions)
    covered = np.arange(1, len(questions) + 1)
    return covered / len(questions), np.cumsum(wrong) / covered


def _sum_of_later(values: FloatArray) -> FloatArray:
    """Return at each place the sum of the value there and all later ones."""
    return np.cumsum(values[::-1])[::-1]


def _most_confident_first(questions: QuestionSet) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the order of the questions, the place of each in it, and its error, which equally confident ones share."""
    falling = -questions.ranked_by
    order = np.argsort(falling, kind="stable")
    _, place = np.unique(falling[order], return_inverse=True)
    return order, place, _mean_by_place(1 - questions.correct[order], place)


def _mean_by_place(values: FloatArray, place: IntArray) -> FloatArray:
    """Return for each value the mean of all that have its place, shape (n,)."""
    mean: FloatArray = np.bincount(place, values) / np.bincount(place)
    return mean[place]


def _placements(questions: QuestionSet) -> FloatArray:
    """Return the share of the questions of the other kind, right or wrong, that are less confident; ties half."""
    _, place = np.unique(questions.ranked_by, return_inverse=True)
    right = np.bincount(place, questions.correct)
    wrong = np.bincount(place) - right
    below = [(np.cumsum(side) - side / 2) / max(side.sum(), 1) for side in (right, wrong)]
    return np.where(questions.correct > 0, below[1][place], below[0][place])
