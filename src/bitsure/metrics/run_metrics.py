"""The numbers of one run, by task and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from bitsure.config.derived_tasks import is_repetition
from bitsure.config.metric import MetricSettings
from bitsure.metrics import bootstrap, paper_compat
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.calibration import errors_if_calibrated
from bitsure.metrics.choice_metrics import accuracy_above_guessing, choice_metrics, confidence_bins
from bitsure.metrics.conformal import answer_sets, set_metrics
from bitsure.metrics.estimation import FEWEST, estimate, few_units, standard_error, unless_few
from bitsure.metrics.metric_names import (
    ACCURACY_ABOVE_GUESSING,
    AT_OWN_TEMPERATURE,
    ECE,
    ECE_IF_CALIBRATED,
    MACRO,
    PAPER_COMPAT,
    TEMPERATURE,
)
from bitsure.metrics.next_token import next_token_metrics, scored_tokens
from bitsure.metrics.own_metrics import own_metrics
from bitsure.metrics.paper_intervals import paper_estimates
from bitsure.metrics.point_estimate import INFLUENCE, NO_INTERVAL, PointEstimate
from bitsure.metrics.questions import QuestionSet, question_set
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.retrieval_metrics import retrieval_metrics
from bitsure.metrics.temperature import assign_folds, inverse_temperatures, temperature_influence
from bitsure.metrics.text_metrics import text_metrics, text_set
from bitsure.metrics.twins import TwinRows, twin_answers, twin_metrics, twin_rows
from bitsure.metrics.written_answers import answer_metrics, answer_set, open_answer_metrics
from bitsure.records.answer_units import is_open, is_written
from bitsure.records.record import Records, by_task, has_choices
from bitsure.records.text_units import has_tokens
from bitsure.results.measurement import Measurement, MetricsByTask

M = TypeVar("M", bound=Measurement)
NULL_DRAWS = 200  # of the error of a calibrated model


def measure(records: Records, settings: MetricSettings) -> MetricsByTask:
    """Return every number of one run, as in metrics.json.

    Intervals resample questions, and hold for this checkpoint. Continuations, whole texts and answers to open questions have
    metrics of their own, and no part in the average over tasks; nor have twins, which ask the questions of another task again.

    Args:
        records: The run's records, of any number of tasks.
        settings: Bins, normalization, resamples, level and seed.
    """
    results: MetricsByTask = {}
    estimates: dict[str, dict[str, PointEstimate]] = {}
    tasks = by_task(records)
    for task, rows in tasks.items():
        if has_choices(rows):
            results[task], estimates[task] = _measure_choices(rows, settings)
        elif is_open(rows):
            results[task] = _measure_open_answers(rows, settings)
        elif is_written(rows):
            results[task], estimates[task] = _measure_answers(rows, settings)
        else:
            results[task] = _measure_texts(rows, settings)
    for task, pairs in twin_rows(tasks).items():
        results[task] |= _measure_twins(pairs, settings)
    if mean := macro_average(Measurement, estimates, results):
        results[MACRO] = mean
    return results


def _measure_choices(records: pa.Table, settings: MetricSettings) -> tuple[dict[str, Measurement], dict[str, PointEstimate]]:
    questions, resampling = question_set(records, settings.normalization), Resampling.of_records(records, settings)
    metrics = choice_metrics(questions, settings) | own_metrics(settings, questions)
    metrics[ACCURACY_ABOVE_GUESSING] = accuracy_above_guessing()
    estimates = estimate(metrics, questions, resampling.weights, resampling.clusters)
    fold = assign_folds(len(questions), resampling.clusters, settings.seed)
    estimates |= _at_own_temperature(questions, fold, resampling, settings)
    sets = answer_sets(questions, fold, resampling.clusters)
    of_sets = estimate(set_metrics(), sets, resampling.weights, resampling.clusters)
    estimates |= unless_few(of_sets, resampling.clusters)
    level = settings.confidence_level
    results = {}
    for name, point_estimate in estimates.items():
        n = metrics[name].count(questions) if name in metrics else len(questions)
        results[name] = summarize(Measurement, point_estimate, n, resampling, level)
    _add_calibrated(results, questions, settings)
    by_place = retrieval_metrics(records)
    for name, point_estimate in estimate(by_place, questions, resampling.weights, resampling.clusters).items():
        results[name] = summarize(Measurement, point_estimate, by_place[name].count(questions), resampling, level)
    if settings.paper_compat:
        kept = len(paper_compat.kept(records))
        for name, point_estimate in paper_estimates(records, resampling.weights, resampling.clusters).items():
            results[f"{PAPER_COMPAT}{name}"] = summarize(Measurement, point_estimate, kept, resampling, level)
    return results, estimates


def _measure_twins(pairs: TwinRows, settings: MetricSettings) -> dict[str, Measurement]:
    answers, resampling = twin_answers(pairs, settings.normalization), Resampling.of_records(pairs.twin, settings)
    return {
        name: summarize(Measurement, point_estimate, len(answers), resampling, settings.confidence_level)
        for name, point_estimate in estimate(twin_metrics(), answers, resampling.weights, resampling.clusters).items()
    }


def _measure_answers(records: pa.Table, settings: MetricSettings) -> tuple[dict[str, Measurement], dict[str, PointEstimate]]:
    answers, resampling = answer_set(records, settings), Resampling.of_records(records, settings)
    metrics = answer_metrics(answers, settings) | own_metrics(settings, answers)
    estimates = estimate(metrics, answers, resampling.weights, resampling.clusters)
    fold = assign_folds(len(answers), resampling.clusters, settings.seed)
    estimates |= _at_own_temperature(answers, fold, resampling, settings)
    results = {}
    for name, point_estimate in estimates.items():
        n = metrics[name].count(answers) if name in metrics else len(answers)
        results[name] = summarize(Measurement, point_estimate, n, resampling, settings.confidence_level)
    _add_calibrated(results, answers, settings)
    return results, estimates


def _measure_open_answers(records: pa.Table, settings: MetricSettings) -> dict[str, Measurement]:
    answers, resampling = answer_set(records, settings), Resampling.of_records(records, settings)
    metrics = open_answer_metrics(answers, settings)
    return {
        name: summarize(Measurement, point_estimate, len(answers), resampling, settings.confidence_level)
        for name, point_estimate in estimate(metrics, answers, resampling.weights, resampling.clusters).items()
    }


def _add_calibrated(results: dict[str, Measurement], questions: QuestionSet, settings: MetricSettings) -> None:
    """Add the error of a calibrated model, and widen the interval of the error by it."""
    results[ECE_IF_CALIBRATED] = _error_if_calibrated(questions, settings)
    results[ECE] = _down_to_calibrated(results[ECE], results[ECE_IF_CALIBRATED])


def _measure_texts(records: pa.Table, settings: MetricSettings) -> dict[str, Measurement]:
    texts, resampling, level = text_set(records), Resampling.of_records(records, settings), settings.confidence_level
    estimates = estimate(text_metrics(texts), texts, resampling.weights, resampling.clusters)
    results = {
        name: summarize(Measurement, point_estimate, len(texts), resampling, level)
        for name, point_estimate in estimates.items()
    }
    if has_tokens(records):
        tokens, of_tokens = scored_tokens(records), Resampling.of_tokens(records, settings)
        for name, point_estimate in estimate(next_token_metrics(tokens, settings), tokens, None, of_tokens.clusters).items():
            results[name] = summarize(Measurement, point_estimate, len(tokens), of_tokens, level)
    return results


def _at_own_temperature(
    questions: QuestionSet, fold: IntArray, resampling: Resampling, settings: MetricSettings
) -> dict[str, PointEstimate]:
    """Return the run's own temperature, and its losses at it, cross-fitted: what is left when the softmax is scaled best.

    Only these calibration errors can be compared across normalizations, which change the softmax's temperature.
    """
    inverse = inverse_temperatures(questions, fold)
    tempered = questions.at_temperature(inverse)
    metrics = choice_metrics(tempered, settings)
    losses = estimate({name: metrics[name] for name in AT_OWN_TEMPERATURE}, tempered, resampling.weights, resampling.clusters)
    losses[ECE] = replace(losses[ECE], method=f"{NO_INTERVAL}biased upward near 0", shape="none")
    temperature = fitted_temperature(
        float((1 / inverse).mean()), temperature_influence(questions, fold, inverse), resampling.clusters, least=0.0
    )
    return {TEMPERATURE: temperature} | {AT_OWN_TEMPERATURE[name]: loss for name, loss in losses.items()}


def fitted_temperature(value: float, influence: FloatArray, clusters: IntArray | None, least: float) -> PointEstimate:
    """Return the estimate of a temperature, or of the difference of two.

    Args:
        value: The temperature.
        influence: Each question's influence on it, shape (n,).
        clusters: Each question's cluster, shape (n,), from 0; None if every question is alone.
        least: The smallest value that can be.
    """
    units = len(influence) if clusters is None else int(clusters.max()) + 1
    if units < FEWEST:
        return PointEstimate(value, math.nan, None, few_units(units, clusters), "none", units=units)
    return PointEstimate(value, standard_error(influence, clusters), None, INFLUENCE, least=least, units=units)


def _down_to_calibrated(error: Measurement, calibrated: Measurement) -> Measurement:
    """Return the plug-in error with an interval that reaches down as far as the bias of a calibrated model's error explains."""
    if error.value is None or error.ci_low is None or calibrated.ci_high is None:
        return error
    low = max(0.0, error.value - calibrated.ci_high)
    if low >= error.ci_low:
        return error
    return error.model_copy(update={"ci_low": low, "interval": f"{error.interval}, down to what calibration explains"})


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


def macro_average(
    kind: type[M], estimates: dict[str, dict[str, PointEstimate]], results: Mapping[str, Mapping[str, M]]
) -> dict[str, M]:
    """Return the mean over the tasks that have a metric, tasks counting alike; empty for a single task.

    Twins of other tasks are left out. The errors of tasks are taken for independent: where they ask about the same people or
    passages, the interval is too narrow. There is an interval where every task has one.

    Args:
        kind: The class of the results.
        estimates: Task → metric → estimate, of what is averaged.
        results: The tasks' results, with their intervals.
    """
    means: dict[str, M] = {}
    counted = [task for task in estimates if not is_repetition(task, estimates)]
    if len(counted) < 2:
        return means
    for name in dict.fromkeys(name for task in counted for name in estimates[task]):
        tasks = [task for task in counted if name in estimates[task] and math.isfinite(estimates[task][name].value)]
        finite = [estimates[task][name] for task in tasks]
        if not finite:
            continue
        value = float(np.mean([of_task.value for of_task in finite]))
        intervals = [(results[task][name].ci_low, results[task][name].ci_high) for task in tasks]
        low, high = interval_of_mean([of_task.value for of_task in finite], intervals)
        means[name] = kind(
            value=value,
            ci_low=low,
            ci_high=high,
            n=len(finite),
            standard_error=math.sqrt(sum(of_task.standard_error**2 for of_task in finite)) / len(finite),
            interval="from the tasks' intervals",
            resampled="questions within tasks",
        )
    return means


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
    has_interval = not estimate.method.startswith(NO_INTERVAL)
    basis = "influence" if estimate.method == INFLUENCE else "variance"
    source = resampling.unit if estimate.replicates is not None else f"none: the {basis} of {resampling.unit}"
    if resampling.n_clusters is not None:
        fields["n_clusters"] = resampling.n_clusters
    return kind(
        value=estimate.value,
        ci_low=low,
        ci_high=high,
        n=n,
        standard_error=estimate.standard_error,
        interval=estimate.method,
        resampled=source if has_interval else None,
        **fields,
    )


def interval_of_mean(values: Sequence[float], intervals: Sequence[tuple[float | None, float | None]]) -> tuple[float, float]:
    """Return the interval of a mean of independent estimates.

    Args:
        values: The estimates.
        intervals: The interval of each. The ends of the mean's are NaN where one has none.

    Reference: Zou & Donner 2008 for an interval of a sum from the intervals of its terms.
    """
    mean = float(np.mean(values))
    below, above = np.sqrt(((np.array(intervals, dtype=float) - np.array(values)[:, None]) ** 2).sum(0)) / len(values)
    return mean - float(below), mean + float(above)
