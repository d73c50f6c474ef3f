"""Thresholds found on the full-precision model, applied to the quantized one: do they still keep their promise?

A user has such thresholds who set them before quantizing. They are found on other folds than they are used on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bitsure.metrics.arrays import BoolArray, FloatArray
from bitsure.metrics.conformal import AnswerSets
from bitsure.metrics.deferral import NAMES, SHARES, deferral_thresholds
from bitsure.metrics.metric_names import CONFORMAL_COVERAGE, CONFORMAL_SET_SIZE
from bitsure.metrics.question_pairs import QuestionPairs
from bitsure.metrics.statistic import SumStatistic, mean, proportion
from bitsure.metrics.ties import with_ties

SIZE_AT_FULL_THRESHOLD = f"{CONFORMAL_SET_SIZE}_at_full_threshold"
COVERAGE_AT_FULL_THRESHOLD = f"{CONFORMAL_COVERAGE}_at_full_threshold"
SAFE_AT_FULL_THRESHOLD = tuple(f"deferral_safe_at_full_threshold_{name}" for name in NAMES)


@dataclass(frozen=True)
class KeptPromise:
    """Whether each of n questions keeps what a threshold promises.

    Attributes:
        correct: 1.0 where it does, else 0.0, shape (n,).
    """

    correct: FloatArray

    def __len__(self) -> int:
        return len(self.correct)


@dataclass(frozen=True)
class ThresholdedAnswers:
    """What one model's answers to n questions become at the full model's thresholds.

    Attributes:
        sets: Their conformal sets.
        deferred: Whether the confidence is below the threshold of each share of SHARES, shape (n, len(SHARES)).
    """

    sets: AnswerSets
    deferred: BoolArray

    def __len__(self) -> int:
        return len(self.sets)

    @cached_property
    def promises(self) -> dict[str, KeptPromise]:
        """For each threshold's metric whether its promise is kept: a right choice in the set; deferred or answered rightly."""
        safe = np.maximum(self.deferred, self.sets.questions.correct[:, None]).T
        by_share = {name: KeptPromise(of_share) for name, of_share in zip(SAFE_AT_FULL_THRESHOLD, safe, strict=True)}
        return {COVERAGE_AT_FULL_THRESHOLD: KeptPromise(self.sets.correct)} | by_share


def at_full_thresholds(pairs: QuestionPairs, sets: AnswerSets) -> tuple[ThresholdedAnswers, ThresholdedAnswers]:
    """Return the full and the quantized model's answers at the thresholds of the full model.

    Args:
        pairs: Both models' answers.
        sets: The full model's answer sets.
    """
    together = with_ties(np.concatenate([pairs.full.confidence, pairs.quantized.confidence]))
    full, quantized = np.split(together, 2)
    thresholds = deferral_thresholds(full, pairs.fold, SHARES)
    return (
        ThresholdedAnswers(sets, full[:, None] < thresholds),
        ThresholdedAnswers(AnswerSets(pairs.quantized, sets.least), quantized[:, None] < thresholds),
    )


def full_threshold_metrics() -> dict[str, SumStatistic[ThresholdedAnswers]]:
    """Return the size of the sets, and the share of questions that keep each promise."""
    sizes: dict[str, SumStatistic[ThresholdedAnswers]] = {SIZE_AT_FULL_THRESHOLD: mean(lambda a: a.sets.size, least=0.0)}
    return sizes | {name: _share_kept(name) for name in (COVERAGE_AT_FULL_THRESHOLD, *SAFE_AT_FULL_THRESHOLD)}


def _share_kept(name: str) -> SumStatistic[ThresholdedAnswers]:
    return proportion(lambda answers: answers.promises[name].correct)
