"""Conformal answer sets: sets of choices that hold a right one for at least a promised share of the questions.

A set holds every choice whose probability reaches a threshold, which is found on other folds than it is used on. On average
over draws of exchangeable questions, or clusters of them, the promise holds for any model; what differs is how large the sets
must be. Which model the threshold was found on is the caller's choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bitsure.metrics.arrays import BoolArray, FloatArray, IntArray
from bitsure.metrics.metric_names import CONFORMAL_COVERAGE, CONFORMAL_SET_SIZE
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.statistic import SumStatistic, mean, proportion
from bitsure.metrics.ties import ROUNDING

MISCOVERAGE = 0.1  # the share of questions whose set may hold no right choice


@dataclass(frozen=True)
class AnswerSets:
    """Sets of choices, one for each of n questions, and what they would be at other promises.

    Attributes:
        questions: The answers that the sets are of.
        least: The probability a choice needs to be in a question's set, shape (n,).
        least_wider: The same where half as many questions may be missed, shape (n,).
        least_narrower: The same where one and a half times as many may be, shape (n,).
    """

    questions: QuestionSet
    least: FloatArray
    least_wider: FloatArray
    least_narrower: FloatArray

    def __len__(self) -> int:
        return len(self.questions)

    @cached_property
    def size(self) -> FloatArray:
        """The number of choices in the set, in [0, K]."""
        return _sizes(self.questions, self.least)

    @cached_property
    def correct(self) -> FloatArray:
        """1.0 where the set holds a right choice, else 0.0."""
        return _covered(self.questions, self.least)

    @cached_property
    def size_refitted(self) -> FloatArray:
        """The size plus the question's influence on all sizes through the threshold; the mean is that of the sizes.

        The threshold is a quantile: a covered question makes the sets smaller, one that is missed makes them larger. The
        influence is −(covered − mean) · dS/dβ, where S is the mean size at a promised coverage β. dS/dβ is the slope between
        the two other promises; the usual formula divides by a density, which is hard to estimate.
        """
        wider, narrower = self.least_wider, self.least_narrower
        gained = float((_covered(self.questions, wider) - _covered(self.questions, narrower)).mean())
        grown = float((_sizes(self.questions, wider) - _sizes(self.questions, narrower)).mean())
        slope = grown / gained if gained > 0 else 0.0
        sizes: FloatArray = self.size - slope * (self.correct - self.correct.mean())
        return sizes

    def of(self, questions: QuestionSet) -> AnswerSets:
        """Return the sets of another model's answers to the same questions, at these thresholds."""
        return replace(self, questions=questions)


def answer_sets(questions: QuestionSet, fold: IntArray, clusters: IntArray | None) -> AnswerSets:
    """Return the answer sets of a model at thresholds found on its own answers in the other folds.

    Args:
        questions: The n questions.
        fold: The fold of each, shape (n,), from 0. Questions of one cluster lie in one fold.
        clusters: Each question's cluster, shape (n,), from 0; None if every question is alone.
    """
    promises = (MISCOVERAGE, MISCOVERAGE / 2, MISCOVERAGE * 3 / 2)
    return AnswerSets(questions, *(least_probabilities(questions, fold, clusters, share) for share in promises))


def least_probabilities(
    questions: QuestionSet, fold: IntArray, clusters: IntArray | None, miscoverage: float = MISCOVERAGE
) -> FloatArray:
    """Return the probability that a choice needs to be in a question's answer set, from the other folds.

    With the score 1 − p of the most probable right choice this is split conformal prediction: the threshold is the
    ⌈(1 − α)(n + 1)⌉-th smallest of n scores, as if the question itself were one of them and were missed. Questions of one
    cluster may be missed together, so all m of the question's own cluster are taken for missed: ⌈(1 − α)(n + m)⌉.

    Args:
        questions: The n questions.
        fold: The fold of each, shape (n,), from 0.
        clusters: Each question's cluster, shape (n,), from 0; None if every question is alone.
        miscoverage: α, in (0, 1).

    Returns:
        Shape (n,); −∞, which every choice reaches, where the other folds hold too few questions for the promise.

    Reference: Sadinle et al. 2019 for the score; Angelopoulos et al. 2024, theorem 1, with the misses of a cluster less α times
        its size as its loss.
    """
    right, least = _most_probable_right(questions), np.empty(len(questions))
    together = np.ones(len(questions), dtype=np.int64) if clusters is None else np.bincount(clusters)[clusters]
    for k in range(int(fold.max()) + 1):
        inside: BoolArray = fold == k
        descending = np.sort(right[~inside])[::-1]
        counted = len(descending) + together[inside]
        rank = counted - np.floor(miscoverage * counted + ROUNDING).astype(np.int64)
        least[inside] = np.append(descending, -np.inf)[np.minimum(rank - 1, len(descending))]
    return least


def set_metrics() -> dict[str, SumStatistic[AnswerSets]]:
    """Return the mean size and the coverage of answer sets.

    The interval of the size counts that the thresholds were fitted. That of the coverage holds them fixed: it says what they
    cover of other questions.
    """
    return {
        CONFORMAL_SET_SIZE: mean(lambda sets: sets.size_refitted, least=0.0),
        CONFORMAL_COVERAGE: proportion(lambda sets: sets.correct),
    }


def _most_probable_right(questions: QuestionSet) -> FloatArray:
    return np.maximum.reduceat(np.where(questions.gold, questions.p, 0.0), questions.starts[:-1])


def _covered(questions: QuestionSet, least: FloatArray) -> FloatArray:
    return np.asarray(_most_probable_right(questions) >= least - ROUNDING, dtype=float)


def _sizes(questions: QuestionSet, least: FloatArray) -> FloatArray:
    inside = questions.p >= questions.spread(least) - ROUNDING
    sizes: FloatArray = np.add.reduceat(inside.astype(float), questions.starts[:-1])
    return sizes
