"""What it gains and costs to ask the full model again where the quantized one is least confident."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.deferral import NAMES
from bitsure.metrics.question_pairs import QuestionPairs
from bitsure.metrics.statistic import SumStatistic, proportion


@dataclass(frozen=True)
class DeferralPoint:
    """One point of the deferral curve; the fields are those of `results.Difference`."""

    share: float
    cost: float
    random_accuracy: float


def deferral_metrics() -> dict[str, SumStatistic[QuestionPairs]]:
    """Return for each share the accuracy of both models together, and its gain over deferring as many at random."""
    metrics = {}
    for k, name in enumerate(NAMES):
        metrics[f"deferral_accuracy_{name}"] = _accuracy(k)
        metrics[f"deferral_gain_{name}"] = _gain(k)
    return metrics


def deferral_points(pairs: QuestionPairs, cost_quantized: float) -> dict[str, DeferralPoint]:
    """Return for each accuracy of the curve the share deferred, the mean cost of an answer, and the accuracy at random.

    All questions are first asked of the quantized model.

    Args:
        pairs: Both models' answers.
        cost_quantized: The cost of an answer of the quantized model, where one of the full model costs 1.
    """
    points = {}
    for k, name in enumerate(NAMES):
        share = float(pairs.deferred[:, k].mean())
        at_random = float(pairs.quantized.correct.mean() + share * pairs.better.mean())
        points[f"deferral_accuracy_{name}"] = DeferralPoint(share, cost_quantized + share, at_random)
    return points


def _accuracy(k: int) -> SumStatistic[QuestionPairs]:
    def right(pairs: QuestionPairs) -> FloatArray:
        return pairs.quantized.correct + pairs.deferred[:, k] * pairs.better

    return proportion(right)


def _gain(k: int) -> SumStatistic[QuestionPairs]:
    """Return the accuracy of deferring the least confident, less that of deferring as many at random: a covariance."""

    def features(pairs: QuestionPairs) -> FloatArray:
        chosen = pairs.deferred[:, k].astype(float)
        return np.stack([chosen * pairs.better, chosen, pairs.better, np.ones(len(pairs))], axis=1)

    def covariance(sums: FloatArray) -> FloatArray:
        both, chosen, better, n = np.moveaxis(sums, -1, 0)
        gain: FloatArray = both / n - chosen / n * better / n
        return gain

    return SumStatistic(features, covariance, "widest", least=-1.0, most=1.0)
