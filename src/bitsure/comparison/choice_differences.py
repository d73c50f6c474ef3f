"""The differences of two models on one task's questions with choices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from bitsure.comparison.difference_tests import with_paired_interval, with_primary_test, with_test
from bitsure.comparison.threshold_differences import threshold_differences
from bitsure.config.schema import MetricSettings
from bitsure.metrics import paper_compat
from bitsure.metrics.choice_metrics import accuracy_above_guessing, choice_metrics
from bitsure.metrics.confidence_shift import shift_metrics
from bitsure.metrics.deferral_curve import deferral_points
from bitsure.metrics.estimation import estimate
from bitsure.metrics.flips import mcnemar
from bitsure.metrics.metric_names import (
    BASELINE_ABOVE_GUESSING,
    CLUSTER_ROBUST,
    FORECAST,
    JUDGED,
    PAPER_COMPAT,
    PRIMARY,
    SQUARED_CALIBRATION,
    TEMPERATURE,
)
from bitsure.metrics.own_metrics import own_metrics
from bitsure.metrics.pair_metrics import pair_metrics
from bitsure.metrics.paper_intervals import paper_estimates
from bitsure.metrics.point_estimate import PointEstimate
from bitsure.metrics.question_pairs import QuestionPairs, TwoModels
from bitsure.metrics.questions import question_set
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.run_metrics import fitted_temperature, summarize
from bitsure.metrics.significance import paired_t_test, z_test
from bitsure.metrics.statistic import Statistic
from bitsure.metrics.temperature import assign_folds
from bitsure.results.measurement import Difference, Interval

STUDY_ALPHA = 0.01  # of the study's own test


def compare_choices(
    before: pa.Table, after: pa.Table, settings: MetricSettings, alpha: float, cost_quantized: float
) -> tuple[dict[str, Difference], dict[str, PointEstimate]]:
    """Return every difference on one task, and the estimates behind those that are averaged over tasks.

    Args:
        before: The task's records of full precision.
        after: Those of the quantized model, of the same questions in the same order.
        settings: How records become numbers.
        alpha: The significance level of the task's primary test, at least, in (0, 1).
        cost_quantized: The cost of an answer of the quantized model, where one of the full model costs 1.
    """
    full, quantized = (question_set(side, settings.normalization) for side in (before, after))
    resampling, level = Resampling.of_records(after, settings), settings.confidence_level
    pairs = QuestionPairs(full, quantized, assign_folds(len(full), resampling.clusters, settings.seed))
    one_model = choice_metrics(full, settings) | own_metrics(full, settings)
    results, estimates = metric_differences(pairs, one_model, resampling, level)
    results["accuracy"] = with_paired_interval(results["accuracy"], pairs, resampling.units, level)
    averaged, shifts = pair_metrics(), shift_metrics(full)  # one confidence means another certainty on each task
    metrics = averaged | shifts
    of_pairs = estimate(metrics, pairs, resampling.weights, resampling.clusters)
    estimates |= {name: of_pairs[name] for name in averaged}
    for name, point_estimate in of_pairs.items():
        results[name] = summarize(Difference, point_estimate, metrics[name].count(pairs), resampling, level)
    guessing = estimate({BASELINE_ABOVE_GUESSING: accuracy_above_guessing()}, full, resampling.weights, resampling.clusters)
    for name, point_estimate in guessing.items():
        results[name] = summarize(Difference, point_estimate, len(full), resampling, level)
    by_threshold, of_thresholds = threshold_differences(pairs, resampling, level)
    results |= by_threshold
    estimates |= of_thresholds
    for name, point in deferral_points(pairs, cost_quantized).items():
        results[name] = results[name].model_copy(update=asdict(point))
    changes = quantized.true_label_prob - full.true_label_prob
    results[PRIMARY], robust = with_primary_test(results[PRIMARY], changes, resampling, level, alpha)
    if robust is not None:
        results[CLUSTER_ROBUST] = robust
    results["correct_to_wrong"] = with_test(results["correct_to_wrong"], mcnemar(pairs, resampling.clusters, level))
    results[TEMPERATURE] = temperature_difference(pairs, resampling, level)
    if settings.paper_compat:
        results |= _paper_compat(before, after, resampling, level)
    return results, estimates


def metric_differences(
    pairs: TwoModels, metrics: Mapping[str, Statistic[Any]], resampling: Resampling, level: float
) -> tuple[dict[str, Difference], dict[str, PointEstimate]]:
    """Return the difference of each metric of one model, with an exploratory test of all but the primary one.

    Args:
        pairs: Both models' answers.
        metrics: The metrics.
        resampling: How the task's questions are resampled.
        level: The confidence level of the intervals, in (0, 1).

    Returns:
        The differences, and their estimates.
    """
    full, quantized = pairs.full, pairs.quantized
    estimates = estimate(metrics, quantized, resampling.weights, resampling.clusters, minus=full)
    results = {}
    for name, metric in metrics.items():
        now, was = estimates[name].sides
        # Where only some questions count, they may be others for each model: the difference also holds what moved between them.
        some = metric.members(full) is not None
        fields: dict[str, float] = {"n_baseline": metric.count(full), "n_quantized": metric.count(quantized)} if some else {}
        if name in JUDGED:
            fields |= {key: getattr(estimates[name], key) for key in FORECAST}
        results[name] = summarize(
            Difference, estimates[name], len(full), resampling, level, baseline=was, quantized=now, **fields
        )
        if name == SQUARED_CALIBRATION:
            before, after = (estimate({name: metric}, side, None, resampling.clusters)[name] for side in (full, quantized))
            sides = {"baseline_ci": _if_finite(before.interval(level)), "quantized_ci": _if_finite(after.interval(level))}
            results[name] = results[name].model_copy(update=sides)
        if name != PRIMARY:
            results[name] = with_test(results[name], z_test(estimates[name], level))
    return results, estimates


def temperature_difference(pairs: QuestionPairs, resampling: Resampling, level: float) -> Difference:
    """Return the mean cross-fitted temperature of both models, each with its interval, and how much it rose."""
    influences = pairs.temperature_influences
    before, after = (
        fitted_temperature(*side, resampling.clusters, 0.0) for side in zip(pairs.temperatures, influences, strict=True)
    )
    return summarize(
        Difference,
        fitted_temperature(after.value - before.value, influences[1] - influences[0], resampling.clusters, -math.inf),
        len(pairs),
        resampling,
        level,
        baseline=before.value,
        baseline_ci=_if_finite(before.interval(level)),
        quantized=after.value,
        quantized_ci=_if_finite(after.interval(level)),
    )


def _if_finite(interval: Interval) -> Interval | None:
    return interval if all(map(math.isfinite, interval)) else None


def _paper_compat(before: pa.Table, after: pa.Table, resampling: Resampling, level: float) -> dict[str, Difference]:
    """Return the study's numbers, with its t-test of full − quantized, the other way round than everything else here."""
    was, now = paper_compat.paper_numbers(before), paper_compat.paper_numbers(after)
    estimates = paper_estimates(after, resampling.weights, resampling.clusters, minus=before)
    n = len(paper_compat.kept(after))
    results = {
        f"{PAPER_COMPAT}{name}": summarize(
            Difference, point_estimate, n, resampling, level, baseline=was[name], quantized=now[name]
        )
        for name, point_estimate in estimates.items()
    }
    changes = paper_compat.gold_probability(before) - paper_compat.gold_probability(after)
    test = paired_t_test(changes, None, None, level, STUDY_ALPHA)
    studied = f"{PAPER_COMPAT}conf_true"
    results[studied] = with_test(results[studied], test, family="the study's own")
    return results
