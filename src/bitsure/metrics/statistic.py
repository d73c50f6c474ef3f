"""What a metric is: a statistic of a set of questions that knows which interval fits it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np

from bitsure.metrics.arrays import BoolArray, Features, FloatArray, IntArray
from bitsure.metrics.leave_one_out import leave_one_out_influence

S = TypeVar("S", bound=Sized, contravariant=True)
"""A set of n questions, of texts, or of pairs of them: it has a length, and arrays of that length."""

IntervalKind: TypeAlias = Literal[
    "mean",  # of a mean or a ratio of sums: t below FEWEST questions, percentile bootstrap from there on
    "log_mean",  # of the exponential of such a number: likewise, with t on the logarithm
    "positive",  # of a mean of skewed numbers above 0: t on the logarithm, for any number of questions
    "proportion",  # of a mean of zeros and ones: Wilson's score interval
    "percentile",
    "widest",  # the wider ends of the percentile and the basic bootstrap: for biased estimates
    "normal",  # for estimates whose replicates are biased
    "influence",  # normal, by the influence of each question: for statistics that are no functions of sums
    "no single",  # none of the number itself, for no method covers; normal of a difference
    "never",  # neither of the number nor of a difference
]
MEANS = ("mean", "log_mean", "positive", "proportion")  # the kinds that have intervals for few questions


class Statistic(ABC, Generic[S]):
    """A number of a set of questions.

    Attributes:
        interval: The interval that fits.
        least: The smallest value that the statistic can take; no interval goes below it.
        most: The largest value that it can take; no interval goes above it.
    """

    interval: IntervalKind = "percentile"
    least: float = -math.inf
    most: float = math.inf

    @abstractmethod
    def value_and_influence(self, questions: S) -> tuple[float, FloatArray]:
        """Return the number, and each question's influence on it.

        Returns:
            The value, NaN where the number does not exist, and the influence, shape (n,): about n times what the value would
            lose without the question.
        """

    def value(self, questions: S) -> float:
        """Return the number alone; NaN where it does not exist."""
        return self.value_and_influence(questions)[0]

    def members(self, questions: S) -> FloatArray | None:
        """Return 1 where a question counts, else 0, shape (n,); None if all count."""
        return None

    def count(self, questions: S) -> int:
        """Return over how many questions the number is taken."""
        members = self.members(questions)
        return len(questions) if members is None else int(members.sum())

    def sampling_error(self, questions: S, clusters: IntArray | None, minus: S | None = None) -> tuple[float, float] | None:
        """Return the standard error where the bootstrap's is wrong, and its chance share; None where the bootstrap's is right.

        The chance share is that of the variance which falls with the square of the number of questions, in [0, 1].

        Args:
            questions: The questions.
            clusters: Each question's cluster, shape (n,), from 0; None if every question is alone.
            minus: The same questions answered by another model, for the error of the difference.
        """
        return None

    def as_sums(self) -> SumStatistic[S] | None:
        """Return the statistic as a function of sums, which a bootstrap can resample; None if it is none."""
        return None


@dataclass(frozen=True)
class SumStatistic(Statistic[S]):
    """A smooth function of sums over questions: θ = function(Σ_i features_i).

    Attributes:
        features: Takes the questions and returns what is summed, shape (n, m), dense or sparse.
        function: Takes sums, shape (r, m), and returns θ of each row, shape (r,).
        among: Takes the questions and returns 1 where a question counts, else 0, shape (n,); None if all count.
    """

    features: Callable[[S], Features]
    function: Callable[[FloatArray], FloatArray]
    interval: IntervalKind = "percentile"
    least: float = -math.inf
    most: float = math.inf
    among: Callable[[S], FloatArray] | None = None

    def value(self, questions: S) -> float:
        """Return the number; NaN where it does not exist."""
        return float(self.from_sums(self.features(questions).sum(0)[None])[0])

    def from_sums(self, sums: FloatArray) -> FloatArray:
        """Return θ of each row of sums, shape (r, m) → (r,); NaN where it does not exist."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return self.function(sums)

    def value_and_influence(self, questions: S) -> tuple[float, FloatArray]:
        """Return the number, and each question's influence by leaving it out of the sums."""
        return leave_one_out_influence(self.features(questions), self.from_sums)

    def members(self, questions: S) -> FloatArray | None:
        """Return 1 where a question counts, else 0, shape (n,); None if all count."""
        return None if self.among is None else self.among(questions)

    def as_sums(self) -> SumStatistic[S]:
        """Return itself."""
        return self


def mean(
    values: Callable[[Any], FloatArray],
    among: Callable[[Any], FloatArray] | None = None,
    least: float = -math.inf,
    most: float = math.inf,
) -> SumStatistic[Any]:
    """Return the mean of a number of each question as a statistic.

    Args:
        values: Takes the questions and returns a number of each, shape (n,).
        among: Takes the questions and returns 1 where a question counts, else 0, shape (n,); None if all count. The mean of
            none is NaN.
        least: The smallest value that a number can have.
        most: The largest.
    """
    return SumStatistic(_summands(values, among), _ratio, "mean", least, most, among)


def proportion(values: Callable[[Any], FloatArray], among: Callable[[Any], FloatArray] | None = None) -> SumStatistic[Any]:
    """Return the mean of zeros and ones as a statistic; the arguments are those of `mean`."""
    return SumStatistic(_summands(values, among), _ratio, "proportion", 0.0, 1.0, among)


def always(members: BoolArray) -> Callable[[Any], FloatArray]:
    """Return a function that says of any n questions that the same ones count, for `among` of `mean`.

    Args:
        members: Whether a question counts, shape (n,).
    """
    return lambda questions: members.astype(float)


def _summands(values: Callable[[Any], FloatArray], among: Callable[[Any], FloatArray] | None) -> Callable[[Any], FloatArray]:
    def features(questions: Any) -> FloatArray:
        counted = np.ones(len(questions)) if among is None else among(questions)
        return np.stack([values(questions) * counted, counted], axis=1)

    return features


def _ratio(sums: FloatArray) -> FloatArray:
    return sums[..., 0] / sums[..., 1]
