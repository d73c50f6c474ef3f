"""The numbers of one run, by task and metric."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from bitsure.config.schema import MetricSettings
from bitsure.metrics import bootstrap, paper_compat
from bitsure.metrics.calibration import errors_if_calibrated
from bitsure.metrics.choice_metrics import accuracy_above_guessing, choice_metrics, confidence_bins
from bitsure.metrics.estimation import PointEstimate, estimate, standard_error
from bitsure.metrics.metric_names import (
    ACCURACY_ABOVE_GUESSING,
    AT_OWN_TEMPERATURE,
    ECE_IF_CALIBRATED,
    MACRO,
    PAPER_COMPAT,
    TEMPERATURE,
)
from bitsure.metrics.own_metrics import own_metrics
from bitsure.metrics.paper_intervals import paper_estimates
from bitsure.metrics.questions import QuestionSet, question_set
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.temperature import assign_folds, inverse_temperatures, temperature_influence
from bitsure.metrics.text_metrics import text_metrics, text_set
from bitsure.records.record import Records, by_task, has_choices
from bitsure.results.measurement import Measurement, MetricsByTask

M = TypeVar("M", bound=Measurement)
NULL_DRAWS = 200  # of the error of a calibrated model


def measure(records: Records, settings: MetricSettings) -> MetricsByTask:
    """Return every number of one run, as in metrics.json.

    Intervals resample questions, and hold for this checkpoint. Tasks without choices have metrics of their own, and no part in
    the average over tasks.

    Args:
        records: The run's records, of any number of tasks.
        settings: Bins, normalization, resamples, level and seed.
    """
    results: MetricsByTask = {}
    estimates: dict[str, dict[str, PointEstimate]] = {}
    for task, rows in by_task(records).items():
        if has_choices(rows):
            results[task], estimates[task] = _measure_choices(rows, settings)
        else:
            results[task] = _measure_texts(rows, settings)
    if len(estimates) > 1:
        results[MACRO] = macro_average(Measurement, estimates, settings.confidence_level)
    return results


def _measure_choices(records: pa.Table, settings: MetricSettings) -> tuple[dict[str, Measurement], dict[str, PointEstimate]]:
    questions, resampling = question_set(records, settings.normalization), Resampling.of_records(records, settings)
    metrics = choice_metrics(questions, settings) | own_metrics(questions, settings)
    metrics[ACCURACY_ABOVE_GUESSING] = accuracy_above_guessing()
    estimates = estimate(metrics, questions, resampling.weights, resampling.clusters)
    estimates |= _at_own_temperature(questions, resampling, settings)
    level = settings.confidence_level
    results = {}
    for name, point_estimate in estimates.items():
        n = metrics[name].count(questions) if name in metrics else len(questions)
        results[name] = summarize(Measurement, point_estimate, n, resampling, level)
    results[ECE_IF_CALIBRATED] = _error_if_calibrated(questions, settings)
    if settings.paper_compat:
        kept = len(paper_compat.kept(records))
        for name, point_estimate in paper_estimates(records, resampling.weights, resampling.clusters).items():
            results[f"{PAPER_COMPAT}{name}"] = summarize(Measurement, point_estimate, kept, resampling, level)
    return results, estimates


def _measure_texts(records: pa.Table, settings: MetricSettings) -> dict[str, Measurement]:
    texts, resampling, level = text_set(records), Resampling.of_records(records, settings), settings.confidence_level
    estimates = estimate(text_metrics(texts), texts, resampling.weights, resampling.clusters)
    return {
        name: summarize(Measurement, point_estimate, len(texts), resampling, level)
        for name, point_estimate in estimates.items()
    }


def _at_own_temperature(questions: QuestionSet, resampling: Resampling, settings: MetricSettings) -> dict[str, PointEstimate]:
    """Return the run's own temperature, and its losses at it, cross-fitted: what is left when the softmax is scaled best.

    Only these calibration errors can be compared across normalizations, which change the softmax's temperature.
    """
    fold = assign_folds(len(questions), resampling.clusters, settings.seed)
    inverse = inverse_temperatures(questions, fold)
    tempered = questions.at_temperature(inverse)
    metrics = choice_metrics(tempered, settings)
    losses = estimate({name: metrics[name] for name in AT_OWN_TEMPERATURE}, tempered, resampling.weights, resampling.clusters)
    error = standard_error(temperature_influence(questions, fold, inverse), resampling.clusters)
    temperature = PointEstimate(float((1 / inverse).mean()), error, None, "influence function", 0.0)
    return {TEMPERATURE: temperature} | {AT_OWN_TEMPERATURE[name]: loss for name, loss in losses.items()}


def _error_if_calibrated(questions: QuestionSet, settings: MetricSettings) -> Measurement:
    bins = confidence_bins(questions, settings)
    errors = errors_if_calibrated(questions.confidence, bins, NULL_DRAWS, settings.seed)
    low, high = bootstrap.percentile_interval(errors, settings.confidence_level)
    return Measurement(
        value=float(errors.mean()),
        ci_low=low,
        ci_high=high,
        n=len(questions),
        interval="percentile",
        resampled="which answers are right, drawn from Bernoulli(confidence)",
    )


def macro_average(kind: type[M], estimates: dict[str, dict[str, PointEstimate]], level: float) -> dict[str, M]:
    """Return the mean over the tasks that have a metric, tasks counting alike.

    Their errors are taken for independent: where tasks ask about the same people or passages, the interval is too narrow.

    Args:
        kind: The class of the results.
        estimates: Task → metric → estimate.
        level: The confidence level of the intervals, in (0, 1).
    """
    results = {}
    for name in dict.fromkeys(name for by_metric in estimates.values() for name in by_metric):
        finite = [
            by_metric[name] for by_metric in estimates.values() if name in by_metric and math.isfinite(by_metric[name].value)
        ]
        if not finite:
            continue
        value = float(np.mean([one.value for one in finite]))
        error = math.sqrt(sum(one.standard_error**2 for one in finite)) / len(finite)
        low, high = bootstrap.normal_interval(value, error, level)
        results[name] = kind(
            value=value,
            ci_low=low,
            ci_high=high,
            n=len(finite),
            standard_error=error,
            interval="normal, over tasks",
            resampled="questions within tasks",
        )
    return results


def summarize(kind: type[M], estimate: PointEstimate, n: int, resampling: Resampling, level: float, **fields: Any) -> M:
    """Return an estimate as a result that says what its interval resampled.

    Args:
        kind: The class of the result.
        estimate: The estimate.
        n: How many questions it is taken over.
        resampling: How the task's questions are resampled.
        level: The confidence level of the interval, in (0, 1).
        fields: Further fields of the result.
    """
    low, high = estimate.interval(level)
    if resampling.n_clusters is not None:
        fields["n_clusters"] = resampling.n_clusters
    return kind(
        value=estimate.value,
        ci_low=low,
        ci_high=high,
        n=n,
        standard_error=estimate.standard_error,
        interval=estimate.method,
        resampled=resampling.unit if estimate.replicates is not None else f"none: the influence of {resampling.unit}",
        **fields,
    )
