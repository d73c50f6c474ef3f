"""The numbers of one run: a function each, from per-question arrays and resampling weights.

Every function takes `Questions` and weights (r, n), how often each question counts in each of r resamples, and
returns r values: weights of ones give the value itself, a bootstrap's weights its replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bitsure.config import Metric
from bitsure.metrics import bootstrap, calibration
from bitsure.metrics.confidence import Questions, questions
from bitsure.records import Record, by_task

Measure = Callable[[Questions, np.ndarray], np.ndarray]

ECE = "expected_calibration_error"
NULL_DRAWS = 200


def mean(values: np.ndarray, weights: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Weighted means (r,) of values (n,), among the questions where `among` (n,) is 1; NaN where there is none."""
    among = np.ones_like(values) if among is None else among
    with np.errstate(invalid="ignore"):
        return weights @ (values * among) / (weights @ among)


def measures(several_gold: bool, n_bins: int) -> dict[str, Measure]:
    """Every metric by its name. With several right choices the Brier score is another one, under another name."""
    return {
        "accuracy": lambda q, w: mean(q.correct, w),
        "confidence": lambda q, w: mean(q.confidence, w),
        "confidence_correct": lambda q, w: mean(q.confidence, w, q.correct),
        "confidence_wrong": lambda q, w: mean(q.confidence, w, 1 - q.correct),
        "true_label_prob": lambda q, w: mean(q.true_label_prob, w),
        "entropy": lambda q, w: mean(q.entropy, w),
        "nll": lambda q, w: mean(q.nll, w),
        "brier_score_set" if several_gold else "brier_score": lambda q, w: mean(q.brier_score, w),
        "overconfidence": lambda q, w: mean(q.confidence - q.correct, w),
        ECE: lambda q, w: calibration.expected_calibration_error(q.confidence, q.correct, w, n_bins),
    }


def count(asked: Questions, name: str) -> int:
    """How many questions a metric is taken over."""
    right = int(asked.correct.sum())
    return {"confidence_correct": right, "confidence_wrong": len(asked) - right}.get(name, len(asked))


def measure_task(records: Sequence[Record], metric: Metric) -> dict[str, dict]:
    """{metric: {value, ci_low, ci_high, n}} of one task; intervals resample questions, for this checkpoint."""
    asked = questions(records)
    weights = bootstrap.resample_weights(len(asked), metric.resamples, metric.seed)
    results = {}
    for name, measure in measures(asked.several_gold, metric.n_bins).items():
        value, replicates = float(measure(asked, np.ones((1, len(asked))))[0]), measure(asked, weights)
        if name == ECE:
            low, high = bootstrap.basic_interval(value, replicates, metric.confidence_level)
        else:
            low, high = bootstrap.percentile_interval(replicates, metric.confidence_level)
        results[name] = entry(value, low, high, count(asked, name))
    null = calibration.error_if_calibrated(asked.confidence, metric.n_bins, NULL_DRAWS, metric.seed)
    results[f"{ECE}_if_calibrated"] = entry(null, None, None, len(asked))
    return results


def measure(records: Sequence[Record], metric: Metric) -> dict[str, dict[str, dict]]:
    """metrics.json: {task: {metric: {value, ci_low, ci_high, n}}}."""
    return {task: measure_task(rows, metric) for task, rows in by_task(records).items()}


def entry(value: float, ci_low: float | None, ci_high: float | None, n: int, **more) -> dict:
    """One number for a JSON file; what does not exist (NaN) is null."""

    def known(x: float) -> float | None:
        return None if math.isnan(x) else x

    numbers = {"value": value, "ci_low": ci_low, "ci_high": ci_high, "n": n, **more}
    return {name: known(x) if isinstance(x, float) else x for name, x in numbers.items()}
