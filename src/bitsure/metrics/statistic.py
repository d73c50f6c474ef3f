"""What a metric is: a statistic of a set of questions that knows which interval fits it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from bitsure.metrics.arrays import Features, FloatArray

S = TypeVar(
    "S", bound=Sized, contravariant=True
)  # a set of n questions, of texts, or of pairs of them: it has a length and arrays of it
BLOCK = 256  # sums that are varied at once


class Statistic(ABC, Generic[S]):
    """A number of a set of questions.

    Attributes:
        interval: The bootstrap interval that fits: `percentile`; `basic` where the estimate is biased; `normal` where the
            replicates are.
        least: The smallest value that the statistic can take; no interval goes below it.
    """

    interval: str = "percentile"
    least: float = -math.inf

    @abstractmethod
    def value_and_influence(self, questions: S) -> tuple[float, FloatArray]:
        """Return the number, and each question's influence on it.

        Returns:
            The value, NaN where the number does not exist, and its influence function, shape (n,): n times the derivative of
            the value by each question's weight.
        """

    def value(self, questions: S) -> float:
        """Return the number alone; NaN where it does not exist."""
        return self.value_and_influence(questions)[0]

    def count(self, questions: S) -> int:
        """Return over how many questions the number is taken."""
        return len(questions)

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
    interval: str = "percentile"
    least: float = -math.inf
    among: Callable[[S], FloatArray] | None = None

    def value(self, questions: S) -> float:
        """Return the number; NaN where it does not exist."""
        return float(self.from_sums(self.features(questions).sum(0)[None])[0])

    def from_sums(self, sums: FloatArray) -> FloatArray:
        """Return θ of each row of sums, shape (r, m) → (r,); NaN where it does not exist."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return self.function(sums)

    def value_and_influence(self, questions: S) -> tuple[float, FloatArray]:
        """Return the number, and n · ∇function · features_i, with the gradient by central differences."""
        features = self.features(questions)
        sums = features.sum(0)
        steps = 1e-6 * np.maximum(np.abs(sums), 1.0)
        gradient = np.empty(len(sums))
        for i in range(0, len(sums), BLOCK):
            change = np.diag(steps)[i : i + BLOCK]
            gradient[i : i + BLOCK] = (self.from_sums(sums + change) - self.from_sums(sums - change)) / (
                2 * steps[i : i + BLOCK]
            )
        with np.errstate(invalid="ignore"):  # NaN where the number does not exist
            influence: FloatArray = features @ gradient * len(questions)
        return float(self.from_sums(sums[None])[0]), influence

    def count(self, questions: S) -> int:
        """Return over how many questions the number is taken."""
        return len(questions) if self.among is None else int(self.among(questions).sum())

    def as_sums(self) -> SumStatistic[S]:
        """Return itself."""
        return self


def mean(values: Callable[[Any], FloatArray], among: Callable[[Any], FloatArray] | None = None) -> SumStatistic[Any]:
    """Return the mean of a number of each question as a statistic.

    Args:
        values: Takes the questions and returns a number of each, shape (n,).
        among: Takes the questions and returns 1 where a question counts, else 0, shape (n,); None if all count. The mean of
            none is NaN.
    """

    def features(questions: Any) -> FloatArray:
        counted = np.ones(len(questions)) if among is None else among(questions)
        return np.stack([values(questions) * counted, counted], axis=1)

    return SumStatistic(features, lambda sums: sums[..., 0] / sums[..., 1], among=among)
