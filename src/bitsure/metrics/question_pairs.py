"""Numbers of each question asked twice: of a model in full precision and of the quantized one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bitsure.metrics import deferral, repair
from bitsure.metrics.confidence import Questions

STRATA = 5


class Outcomes:
    """Right and wrong answers to the same questions: `full` and `quantized` have `correct`, 0 or 1 each."""

    @cached_property
    def lost(self) -> np.ndarray:
        """1 where right became wrong."""
        return self.full.correct * (1 - self.quantized.correct)

    @cached_property
    def won(self) -> np.ndarray:
        """1 where wrong became right."""
        return (1 - self.full.correct) * self.quantized.correct


@dataclass(frozen=True)
class Pairs(Outcomes):
    """n questions, the same in both; `fold` (n,) for what is fitted. Arrays have shape (n,) unless said."""

    full: Questions
    quantized: Questions
    fold: np.ndarray

    def __len__(self) -> int:
        return len(self.full)

    @cached_property
    def flipped(self) -> np.ndarray:
        """1 where the top choice is another one."""
        return (self.full.prediction != self.quantized.prediction).astype(float)

    @cached_property
    def kl_divergence(self) -> np.ndarray:
        """KL(full ‖ quantized) of the choice probabilities, in nats, in [0, ∞)."""
        terms = np.where(self.full.p > 0, self.full.p * (self.full.log_p - self.quantized.log_p), 0.0)
        return np.maximum(np.add.reduceat(terms, self.full.starts[:-1]), 0.0)

    @cached_property
    def jensen_shannon(self) -> np.ndarray:
        """The Jensen–Shannon divergence (Lin 1991), base 2, in [0, 1]; its square root is a distance."""
        middle = (self.full.p + self.quantized.p) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = [np.where(side.p > 0, side.p * np.log2(side.p / middle), 0.0) for side in (self.full, self.quantized)]
        return np.clip(np.add.reduceat(terms[0] + terms[1], self.full.starts[:-1]) / 2, 0.0, 1.0)

    @cached_property
    def log_odds_change(self) -> np.ndarray:
        """δ = the quantized model's ln (p_G / (1 − p_G)) less the full model's, nats: no slope of the softmax in it.

        0 where every choice is right and there are no odds (`has_odds`).
        """
        before, after = self.full.log_odds, self.quantized.log_odds
        some = self.has_odds > 0
        return np.where(some, after, 0.0) - np.where(some, before, 0.0)

    @cached_property
    def has_odds(self) -> np.ndarray:
        """1 where some choice is wrong."""
        return (np.add.reduceat(self.full.gold.astype(int), self.full.starts[:-1]) < self.full.n_choices).astype(float)

    @cached_property
    def certainty(self) -> np.ndarray:
        """The rank, from 0 (unsure) to 1, of the full model's margin within the task."""
        from scipy.stats import rankdata

        return (rankdata(self.full.margin) - 0.5) / len(self)  # equal ones have their mean rank

    @cached_property
    def stratum(self) -> np.ndarray:
        """0 (unsure) … STRATA − 1: equally many questions each."""
        return np.minimum((self.certainty * STRATA).astype(int), STRATA - 1)

    @cached_property
    def full_at_own_temperature(self) -> Questions:
        return self.full.at_temperature(self._inverse[0])

    @cached_property
    def quantized_at_own_temperature(self) -> Questions:
        return self.quantized.at_temperature(self._inverse[1])

    @cached_property
    def quantized_at_full_temperature(self) -> Questions:
        """The full model's temperature transferred: what one would use who calibrated before quantizing."""
        return self.quantized.at_temperature(self._inverse[0])

    @cached_property
    def _inverse(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(repair.inverse_temperatures(side, self.fold) for side in (self.full, self.quantized))

    @property
    def temperatures(self) -> tuple[float, float]:
        """Mean temperature of the full and of the quantized model over the questions' folds."""
        return tuple(float((1 / inverse).mean()) for inverse in self._inverse)

    @property
    def temperature_influences(self) -> tuple[np.ndarray, np.ndarray]:
        """Each question's influence on the two `temperatures`."""
        sides = zip((self.full, self.quantized), self._inverse, strict=True)
        return tuple(repair.temperature_influence(side, self.fold, inverse) for side, inverse in sides)

    @cached_property
    def better(self) -> np.ndarray:
        """By how much the full model is more right: −1, 0 or 1."""
        return self.full.correct - self.quantized.correct

    @cached_property
    def deferred(self) -> np.ndarray:
        """(n, len(SHARES)) which questions go to the full model, for each share."""
        return deferral.deferred(self.quantized.confidence, self.fold, deferral.SHARES)
