"""The answers of two models to the same questions: one in full precision, one quantized."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from bitsure.metrics.arrays import BoolArray, FloatArray, IntArray
from bitsure.metrics.deferral import SHARES, defer_least_confident
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.temperature import inverse_temperatures, temperature_influence
from bitsure.metrics.ties import with_ties

STRATA = 5


class Graded(Protocol):
    """n answers that are right or wrong."""

    @property
    def correct(self) -> FloatArray:
        """1.0 where the answer is right, else 0.0, shape (n,)."""

    def __len__(self) -> int: ...


A = TypeVar("A", bound=Graded)


class TwoModels(Protocol):
    """What two models answered to the same questions, whatever an answer is."""

    @property
    def full(self) -> Any:
        """The answers in full precision."""

    @property
    def quantized(self) -> Any:
        """Those of the quantized model."""


@dataclass(frozen=True)
class AnswerPairs(Generic[A]):
    """Two models' answers to the same n questions; arrays have shape (n,).

    Attributes:
        full: The answers in full precision.
        quantized: Those of the quantized model.
    """

    full: A
    quantized: A

    def __len__(self) -> int:
        return len(self.full)

    @cached_property
    def lost(self) -> FloatArray:
        """1 where a right answer became wrong."""
        return self.full.correct * (1 - self.quantized.correct)

    @cached_property
    def won(self) -> FloatArray:
        """1 where a wrong answer became right."""
        return (1 - self.full.correct) * self.quantized.correct


@dataclass(frozen=True)
class QuestionPairs(AnswerPairs[QuestionSet]):
    """Two models' answers to the same n questions with choices; arrays have shape (n,) unless they say otherwise.

    Attributes:
        fold: The fold of each question, for what is fitted.
    """

    fold: IntArray

    @cached_property
    def flipped(self) -> FloatArray:
        """1 where the prediction is another choice."""
        return np.asarray(self.full.prediction != self.quantized.prediction, dtype=float)

    @cached_property
    def kl_divergence(self) -> FloatArray:
        """KL(full ‖ quantized) of the choice probabilities, in nats, in [0, ∞)."""
        terms = np.where(self.full.p > 0, self.full.p * (self.full.log_p - self.quantized.log_p), 0.0)
        divergence: FloatArray = np.add.reduceat(terms, self.full.starts[:-1])
        return np.maximum(divergence, 0.0)

    @cached_property
    def jensen_shannon(self) -> FloatArray:
        """The Jensen–Shannon divergence (Lin 1991), base 2, in [0, 1]; its square root is a distance."""
        middle = (self.full.p + self.quantized.p) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = [np.where(side.p > 0, side.p * np.log2(side.p / middle), 0.0) for side in (self.full, self.quantized)]
        divergence: FloatArray = np.add.reduceat(terms[0] + terms[1], self.full.starts[:-1]) / 2
        return np.clip(divergence, 0.0, 1.0)

    @cached_property
    def log_odds_change(self) -> FloatArray:
        """δ: the quantized model's ln (p_G / (1 − p_G)) less the full model's, in nats, free of the softmax's slope.

        0 where every choice is right and there are no odds (`has_odds`).
        """
        before, after = self.full.log_odds, self.quantized.log_odds
        exists = self.has_odds > 0
        change: FloatArray = np.where(exists, after, 0.0) - np.where(exists, before, 0.0)
        return change

    @cached_property
    def has_odds(self) -> FloatArray:
        """1 where some choice is wrong."""
        return (np.add.reduceat(self.full.gold.astype(int), self.full.starts[:-1]) < self.full.n_choices).astype(float)

    @cached_property
    def certainty(self) -> FloatArray:
        """The rank of the full model's margin within the task, from 0 (unsure) to 1; equal margins have their mean rank."""
        from scipy.stats import rankdata

        ranks: FloatArray = rankdata(with_ties(self.full.margin))
        return (ranks - 0.5) / len(self)

    @cached_property
    def stratum(self) -> IntArray:
        """The stratum of certainty, 0 (unsure) … STRATA − 1: equally many questions each."""
        stratum: IntArray = np.minimum((self.certainty * STRATA).astype(int), STRATA - 1)
        return stratum

    @cached_property
    def full_at_own_temperature(self) -> QuestionSet:
        """The full model at its own fitted temperature."""
        return self.full.at_temperature(self._inverse[0])

    @cached_property
    def quantized_at_own_temperature(self) -> QuestionSet:
        """The quantized model at its own fitted temperature."""
        return self.quantized.at_temperature(self._inverse[1])

    @cached_property
    def quantized_at_full_temperature(self) -> QuestionSet:
        """The quantized model at the full model's temperature, which a user has who calibrated before quantizing."""
        return self.quantized.at_temperature(self._inverse[0])

    @cached_property
    def _inverse(self) -> tuple[FloatArray, FloatArray]:
        return inverse_temperatures(self.full, self.fold), inverse_temperatures(self.quantized, self.fold)

    @property
    def temperatures(self) -> tuple[float, float]:
        """The mean temperature of the full and of the quantized model over the questions' folds."""
        full, quantized = (float((1 / inverse).mean()) for inverse in self._inverse)
        return full, quantized

    @property
    def temperature_influences(self) -> tuple[FloatArray, FloatArray]:
        """Each question's influence on the two `temperatures`."""
        full, quantized = self._inverse
        return (
            temperature_influence(self.full, self.fold, full),
            temperature_influence(self.quantized, self.fold, quantized),
        )

    @cached_property
    def better(self) -> FloatArray:
        """How much more right the full model is: −1, 0 or 1."""
        return self.full.correct - self.quantized.correct

    @cached_property
    def deferred(self) -> BoolArray:
        """Which questions go to the full model, for each share of SHARES, shape (n, len(SHARES))."""
        return defer_least_confident(self.quantized.confidence, self.fold, SHARES)
