"""The differences of two models on one task whose answers they write."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa

from bitsure.comparison.choice_differences import metric_differences, temperature_difference
from bitsure.comparison.difference_tests import with_paired_interval, with_primary_test, with_test
from bitsure.config.schema import MetricSettings
from bitsure.metrics.choice_metrics import accuracy_above_guessing
from bitsure.metrics.deferral_curve import deferral_metrics, deferral_points
from bitsure.metrics.estimation import estimate
from bitsure.metrics.flips import mcnemar
from bitsure.metrics.metric_names import BASELINE_ABOVE_GUESSING, CLUSTER_ROBUST, PRIMARY, TEMPERATURE
from bitsure.metrics.own_metrics import own_metrics
from bitsure.metrics.pair_metrics import flip_metrics
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.run_metrics import summarize
from bitsure.metrics.temperature import assign_folds
from bitsure.metrics.written_answers import WrittenPairs, answer_metrics, answer_set
from bitsure.results.measurement import Difference


def compare_answers(
    before: pa.Table, after: pa.Table, settings: MetricSettings, alpha: float, cost_quantized: float
) -> dict[str, Difference]:
    """Return every difference on one task.

    Both models wrote answers of their own to the same questions. So there is no divergence of the two: what is paired is
    whether each is right, and how sure each model is of its own.

    Args:
        before: The task's records of full precision.
        after: Those of the quantized model, of the same questions in the same order.
        settings: How records become numbers.
        alpha: The significance level of the task's primary test, at least, in (0, 1).
        cost_quantized: The cost of an answer of the quantized model, where one of the full model costs 1.
    """
    full, quantized = answer_set(before), answer_set(after)
    resampling, level = Resampling.of_records(after, settings), settings.confidence_level
    pairs = WrittenPairs(full, quantized, assign_folds(len(full), resampling.clusters, settings.seed))
    metrics = answer_metrics(full, settings) | own_metrics(full, settings)
    results, _ = metric_differences(pairs, metrics, resampling, level)
    results["accuracy"] = with_paired_interval(results["accuracy"], pairs, resampling.units, level)
    of_pairs = flip_metrics() | deferral_metrics()
    for name, point_estimate in estimate(of_pairs, pairs, resampling.weights, resampling.clusters).items():
        results[name] = summarize(Difference, point_estimate, of_pairs[name].count(pairs), resampling, level)
    for name, point in deferral_points(pairs, cost_quantized).items():
        results[name] = results[name].model_copy(update=asdict(point))
    guessing = {BASELINE_ABOVE_GUESSING: accuracy_above_guessing()}
    [above] = estimate(guessing, full, resampling.weights, resampling.clusters).values()
    results[BASELINE_ABOVE_GUESSING] = summarize(Difference, above, len(full), resampling, level)
    changes = quantized.true_label_prob - full.true_label_prob
    results[PRIMARY], robust = with_primary_test(results[PRIMARY], changes, resampling, level, alpha)
    if robust is not None:
        results[CLUSTER_ROBUST] = robust
    results["correct_to_wrong"] = with_test(results["correct_to_wrong"], mcnemar(pairs, resampling.clusters, level))
    results[TEMPERATURE] = temperature_difference(pairs, resampling, level)
    return results
