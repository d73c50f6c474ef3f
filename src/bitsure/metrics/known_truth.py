"""How far calibration estimates are from the truth, where the true distribution over the choices is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitsure.metrics import calibration
from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.bins import Bins
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.smooth_calibration import smooth_calibration_error
from bitsure.metrics.statistic import SumStatistic


@dataclass(frozen=True)
class EstimatorPerformance:
    """What an estimator gives over draws of the right answers.

    Attributes:
        true: What it estimates.
        mean: The mean of its estimates.
        bias: Mean less truth.
        rmse: The root mean squared error.
    """

    true: float
    mean: float
    bias: float
    rmse: float


@dataclass(frozen=True)
class ExpectedAnswers:
    """Answers of which the expected correctness is known: the true probability of the predicted choice, shape (n,)."""

    confidence: FloatArray
    correct: FloatArray

    def __len__(self) -> int:
        return len(self.confidence)


def estimators(bins: Bins) -> dict[str, tuple[SumStatistic[Any], SumStatistic[Any]]]:
    """Return by name an estimator, and the statistic of expected correctness that it estimates."""
    plug_in, smooth = calibration.expected_calibration_error(bins), smooth_calibration_error()
    rms = calibration.rms_calibration_error(bins)
    squared = SumStatistic(rms.features, lambda sums: rms.function(sums) ** 2)
    return {
        "expected_calibration_error": (plug_in, plug_in),
        "rms_calibration_error": (rms, rms),
        "squared_calibration_error": (squared, squared),
        "debiased_squared_calibration_error": (calibration.debiased_squared_error(bins), squared),
        "smooth_calibration_error": (smooth, smooth),
    }


def estimator_performance(
    questions: QuestionSet, truth: FloatArray, bins: Bins, draws: int, seed: int
) -> dict[str, EstimatorPerformance]:
    """Draw the right answers from a known distribution and return what each estimator makes of them.

    The true binned error is Σ_b w_b |mean p*_ŷ − c̄_b|, and its like for the other estimators.

    Args:
        questions: n questions with K choices each.
        truth: The true distribution over the choices, shape (n, K).
        bins: The confidence bins.
        draws: How often right answers are drawn.
        seed: Seed of the draws.
    """
    n, rng, by_name = len(questions), np.random.default_rng(seed), estimators(bins)
    expected = ExpectedAnswers(questions.confidence, truth[np.arange(n), questions.prediction])
    estimates: dict[str, list[float]] = {name: [] for name in by_name}
    edges = truth.cumsum(1)[:, :-1]
    for _ in range(draws):
        gold = (rng.random((n, 1)) > edges).sum(1)
        drawn = replace(questions, gold=np.eye(truth.shape[1], dtype=bool)[gold].ravel())
        for name, (estimator, _) in by_name.items():
            estimates[name].append(estimator.value(drawn))
    performances = {}
    for name, (_, target) in by_name.items():
        true, values = target.value(expected), np.array(estimates[name])
        rmse = float(np.sqrt(np.mean((values - true) ** 2)))
        performances[name] = EstimatorPerformance(true, float(values.mean()), float(values.mean() - true), rmse)
    return performances
