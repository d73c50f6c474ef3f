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
    """Sets of choices, one for each of n questions.

    Attributes:
        questions: The answers that the sets are of.
        least: The probability a choice needs to be in a question's set, shape (n,).
    """

    questions: QuestionSet
    least: FloatArray

    def __len__(self) -> int:
        return len(self.questions)

    @cached_property
    def size(self) -> FloatArray:
        """The number of choices in the set, in [0, K]."""
        inside = self.questions.p >= self.questions.spread(self.least) - ROUNDING
        sizes: FloatArray = np.add.reduceat(inside.astype(float), self.questions.starts[:-1])
        return sizes

    @cached_property
    def correct(self) -> FloatArray:
        """1.0 where the set holds a right choice, else 0.0."""
        return np.asarray(_most_probable_right(self.questions) >= self.least - ROUNDING, dtype=float)


def answer_sets(questions: QuestionSet, fold: IntArray, clusters: IntArray | None) -> AnswerSets:
    """Return the answer sets of a model at thresholds found on its own answers in the other folds.

    Args:
        questions: The n questions.
        fold: The fold of each, shape (n,), from 0. Questions of one cluster lie in one fold.
        clusters: Each question's cluster, shape (n,), from 0; None if every question is alone.
    """
    return AnswerSets(questions, least_probabilities(questions, fold, clusters))


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

    The size has no interval of its own: none that was tried covers the effect of fitting the thresholds with few questions.
    The interval of the coverage holds the thresholds fixed: it says what they cover of other questions.
    """
    return {
        CONFORMAL_SET_SIZE: replace(mean(lambda sets: sets.size, least=0.0), interval="no single"),
        CONFORMAL_COVERAGE: proportion(lambda sets: sets.correct),
    }


def _most_probable_right(questions: QuestionSet) -> FloatArray:
    return np.maximum.reduceat(np.where(questions.gold, questions.p, 0.0), questions.starts[:-1])
