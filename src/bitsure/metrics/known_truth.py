"""Where the true distribution over the choices is known: how far calibration estimates are from the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bitsure.metrics import calibration
from bitsure.metrics.calibration import Bins
from bitsure.metrics.confidence import Questions
from bitsure.metrics.statistics import Sums


@dataclass(frozen=True)
class Performance:
    """Of one estimator: its true value, and its mean, bias and root mean squared error over draws of the right answers."""

    true: float
    mean: float
    bias: float
    rmse: float


@dataclass(frozen=True)
class _Expected:
    """Questions whose correctness is not drawn but its expectation: the true probability of the predicted choice."""

    confidence: np.ndarray
    correct: np.ndarray

    def __len__(self) -> int:
        return len(self.confidence)


def estimators(bins: Bins) -> dict[str, tuple[Sums, Sums]]:
    """By name an estimator, and the statistic of expected correctness that it estimates."""
    plug_in, smooth = calibration.expected_calibration_error(bins), calibration.smooth_calibration_error()
    rms = calibration.rms_calibration_error(bins)
    squared = Sums(rms.features, lambda sums: rms.of(sums) ** 2)
    return {
        "expected_calibration_error": (plug_in, plug_in),
        "rms_calibration_error": (rms, rms),
        "squared_calibration_error": (squared, squared),
        "debiased_squared_calibration_error": (calibration.debiased_squared_error(bins), squared),
        "smooth_calibration_error": (smooth, smooth),
    }


def performance(asked: Questions, truth: np.ndarray, bins: Bins, draws: int, seed: int) -> Mapping[str, Performance]:
    """Draw the right answers from `truth` (n, K), as often as asked for, and see what each estimator says.

    The binned true error is Σ_b w_b |mean p*_ŷ − c̄_b|, and its like for the other estimators.
    """
    n = len(asked)
    rng, expected = np.random.default_rng(seed), _Expected(asked.confidence, truth[np.arange(n), asked.prediction])
    found = {name: [] for name in estimators(bins)}
    edges = truth.cumsum(1)[:, :-1]
    for _ in range(draws):
        gold = (rng.random((n, 1)) > edges).sum(1)
        drawn = replace(asked, gold=np.eye(truth.shape[1], dtype=bool)[gold].ravel())
        for name, (estimator, _) in estimators(bins).items():
            found[name].append(estimator.value(drawn))
    return {
        name: Performance(
            true=(true := target.value(expected)),
            mean=float(np.mean(found[name])),
            bias=float(np.mean(found[name]) - true),
            rmse=float(np.sqrt(np.mean((np.array(found[name]) - true) ** 2))),
        )
        for name, (_, target) in estimators(bins).items()
    }
