"""What quantizing does to thresholds: conformal answer sets, and deferral at the full model's confidence."""

from __future__ import annotations

from bitsure.comparison.difference_tests import with_paired_interval
from bitsure.metrics.conformal import answer_sets
from bitsure.metrics.estimation import estimate, unless_few
from bitsure.metrics.full_thresholds import (
    COVERAGE_AT_FULL_THRESHOLD,
    SAFE_AT_FULL_THRESHOLD,
    at_full_thresholds,
    full_threshold_metrics,
)
from bitsure.metrics.metric_names import CONFORMAL_SET_SIZE
from bitsure.metrics.point_estimate import PointEstimate
from bitsure.metrics.question_pairs import AnswerPairs, QuestionPairs
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.set_size_change import set_size_change
from bitsure.metrics.task_results import summarize
from bitsure.results.measurement import Difference


def threshold_differences(
    pairs: QuestionPairs, resampling: Resampling, level: float
) -> tuple[dict[str, Difference], dict[str, PointEstimate]]:
    """Return how the answer sets change, each model at its own threshold and both at the full model's, and likewise deferral.

    At the full model's thresholds, `share` of the numbers of deferral is what the quantized model defers.

    Args:
        pairs: Both models' answers.
        resampling: How the task's questions are resampled.
        level: The confidence level of the intervals, in (0, 1).

    Returns:
        The differences, without tests, and their estimates.
    """
    clusters = resampling.clusters
    full_sets, quantized_sets = (answer_sets(side, pairs.fold, clusters) for side in (pairs.full, pairs.quantized))
    full, quantized = at_full_thresholds(pairs, full_sets)
    changes = estimate(full_threshold_metrics(), quantized, resampling.weights, clusters, minus=full)
    changes = {CONFORMAL_SET_SIZE: set_size_change(full_sets, quantized_sets, pairs.fold, clusters, level)} | changes
    estimates = unless_few(changes, clusters)
    results = {
        name: summarize(Difference, change, len(pairs), resampling, level, baseline=change.sides[1], quantized=change.sides[0])
        for name, change in estimates.items()
    }
    for name, kept in full.promises.items():
        both = AnswerPairs(kept, quantized.promises[name])
        results[name] = with_paired_interval(results[name], both, resampling.units, level)
    promised = COVERAGE_AT_FULL_THRESHOLD
    if results[promised].ci_low is not None:
        [coverage] = estimate({promised: full_threshold_metrics()[promised]}, quantized, None, clusters).values()
        results[promised] = results[promised].model_copy(update={"quantized_ci": coverage.interval(level)})
    for k, name in enumerate(SAFE_AT_FULL_THRESHOLD):
        results[name] = results[name].model_copy(update={"share": float(quantized.deferred[:, k].mean())})
    return results, estimates
