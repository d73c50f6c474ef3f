"""The differences of two models' answers to the same questions, in the order in which they stand in comparison.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bitsure.comparison.difference_tests import with_paired_interval, with_primary_test, with_test
from bitsure.config.metric import MetricSettings
from bitsure.metrics.choice_metrics import accuracy_above_guessing
from bitsure.metrics.deferral_curve import deferral_points
from bitsure.metrics.estimation import estimate
from bitsure.metrics.flips import mcnemar
from bitsure.metrics.metric_names import (
    BASELINE_ABOVE_GUESSING,
    CLUSTER_ROBUST,
    FORECAST,
    JUDGED,
    PRIMARY,
    SQUARED_CALIBRATION,
    TEMPERATURE,
)
from bitsure.metrics.point_estimate import PointEstimate
from bitsure.metrics.question_pairs import QuestionPairs, TwoModels
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.significance import z_test
from bitsure.metrics.statistic import Statistic, SumStatistic
from bitsure.metrics.task_results import summarize
from bitsure.metrics.temperature import fitted_temperature
from bitsure.results.measurement import Difference

NONE: Mapping[str, Any] = {}


class ComparedPairs:
    """The differences on one task, which are added in their order.

    Args:
        pairs: Both models' answers.
        resampling: How the task's questions are resampled.
        settings: How records become numbers.
    """

    def __init__(self, pairs: QuestionPairs, resampling: Resampling, settings: MetricSettings) -> None:
        self.pairs, self.resampling, self.level = pairs, resampling, settings.confidence_level
        self.results: dict[str, Difference] = {}
        self.estimates: dict[str, PointEstimate] = {}
        """Those behind the results that are averaged over tasks."""

    def add(self, results: Mapping[str, Difference], estimates: Mapping[str, PointEstimate] = NONE) -> None:
        """Add results, and the estimates behind those that are averaged over tasks."""
        self.results |= results
        self.estimates |= estimates

    def add_numbers(
        self,
        of_model: Mapping[str, Statistic[Any]],
        of_pairs: Mapping[str, SumStatistic[Any]],
        of_task: Mapping[str, SumStatistic[Any]] = NONE,
    ) -> None:
        """Add the differences of metrics of one model, the metrics of pairs, and full precision's accuracy above guessing.

        Args:
            of_model: Metrics of one model.
            of_pairs: Metrics of both together.
            of_task: Further ones of both together, which no average over tasks has.
        """
        pairs, resampling, level = self.pairs, self.resampling, self.level
        self.add(*metric_differences(pairs, of_model, resampling, level))
        self.results["accuracy"] = with_paired_interval(self.results["accuracy"], pairs, resampling.units, level)
        metrics = {**of_pairs, **of_task}
        estimates = estimate(metrics, pairs, resampling.weights, resampling.clusters)
        self.estimates |= {name: estimates[name] for name in of_pairs}
        for name, point_estimate in estimates.items():
            self.results[name] = summarize(Difference, point_estimate, metrics[name].count(pairs), resampling, level)
        guessing = {BASELINE_ABOVE_GUESSING: accuracy_above_guessing()}
        [above] = estimate(guessing, pairs.full, resampling.weights, resampling.clusters).values()
        self.results[BASELINE_ABOVE_GUESSING] = summarize(Difference, above, len(pairs), resampling, level)

    def add_uses_and_tests(self, alpha: float, cost_quantized: float) -> None:
        """Add what deferral costs, the primary test, McNemar's test, and the models' temperatures.

        Args:
            alpha: The significance level of the task's primary test, at least, in (0, 1).
            cost_quantized: The cost of an answer of the quantized model, where one of the full model costs 1.
        """
        pairs, resampling, level, results = self.pairs, self.resampling, self.level, self.results
        for name, point in deferral_points(pairs, cost_quantized).items():
            results[name] = results[name].model_copy(update=asdict(point))
        changes = pairs.quantized.true_label_prob - pairs.full.true_label_prob
        results[PRIMARY], robust = with_primary_test(results[PRIMARY], changes, resampling, level, alpha)
        if robust is not None:
            results[CLUSTER_ROBUST] = robust
        results["correct_to_wrong"] = with_test(results["correct_to_wrong"], mcnemar(pairs, resampling.clusters, level))
        results[TEMPERATURE] = temperature_difference(pairs, resampling, level)


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
            sides = {"baseline_ci": before.finite_interval(level), "quantized_ci": after.finite_interval(level)}
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
        baseline_ci=before.finite_interval(level),
        quantized=after.value,
        quantized_ci=after.finite_interval(level),
    )
