"""The numbers of one run, by task and metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from bitsure.config.metric import MetricSettings
from bitsure.metrics import bootstrap, paper_compat
from bitsure.metrics.arrays import IntArray
from bitsure.metrics.calibration import errors_if_calibrated
from bitsure.metrics.choice_metrics import accuracy_above_guessing, choice_metrics, confidence_bins
from bitsure.metrics.conformal import answer_sets, set_metrics
from bitsure.metrics.estimation import estimate, unless_few
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
from bitsure.metrics.point_estimate import NO_INTERVAL, PointEstimate
from bitsure.metrics.questions import QuestionSet, question_set
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.retrieval_metrics import retrieval_metrics
from bitsure.metrics.statistic import Statistic
from bitsure.metrics.task_results import macro_average, summarize
from bitsure.metrics.temperature import assign_folds, fitted_temperature, inverse_temperatures, temperature_influence
from bitsure.metrics.text_metrics import text_metrics, text_set
from bitsure.metrics.twins import TwinRows, twin_answers, twin_metrics, twin_rows
from bitsure.metrics.written_answers import answer_metrics, answer_set, open_answer_metrics
from bitsure.records.answer_units import is_open, is_written
from bitsure.records.record import Records, by_task, has_choices
from bitsure.records.text_units import has_tokens
from bitsure.results.measurement import Measurement, MetricsByTask

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
    results = _results(estimates, metrics, questions, resampling, settings)
    _add_calibrated(results, questions, settings)
    by_place = retrieval_metrics(records)
    of_places = estimate(by_place, questions, resampling.weights, resampling.clusters)
    results |= _results(of_places, by_place, questions, resampling, settings)
    if settings.paper_compat:
        kept, level = len(paper_compat.kept(records)), settings.confidence_level
        for name, point_estimate in paper_estimates(records, resampling.weights, resampling.clusters).items():
            results[f"{PAPER_COMPAT}{name}"] = summarize(Measurement, point_estimate, kept, resampling, level)
    return results, estimates


def _measure_twins(pairs: TwinRows, settings: MetricSettings) -> dict[str, Measurement]:
    answers, resampling = twin_answers(pairs, settings.normalization), Resampling.of_records(pairs.twin, settings)
    metrics = twin_metrics()
    estimates = estimate(metrics, answers, resampling.weights, resampling.clusters)
    return _results(estimates, metrics, answers, resampling, settings)


def _measure_answers(records: pa.Table, settings: MetricSettings) -> tuple[dict[str, Measurement], dict[str, PointEstimate]]:
    answers, resampling = answer_set(records, settings), Resampling.of_records(records, settings)
    metrics = answer_metrics(answers, settings) | own_metrics(settings, answers)
    estimates = estimate(metrics, answers, resampling.weights, resampling.clusters)
    fold = assign_folds(len(answers), resampling.clusters, settings.seed)
    estimates |= _at_own_temperature(answers, fold, resampling, settings)
    results = _results(estimates, metrics, answers, resampling, settings)
    _add_calibrated(results, answers, settings)
    return results, estimates


def _measure_open_answers(records: pa.Table, settings: MetricSettings) -> dict[str, Measurement]:
    answers, resampling = answer_set(records, settings), Resampling.of_records(records, settings)
    metrics = open_answer_metrics(answers, settings)
    estimates = estimate(metrics, answers, resampling.weights, resampling.clusters)
    return _results(estimates, metrics, answers, resampling, settings)


def _add_calibrated(results: dict[str, Measurement], questions: QuestionSet, settings: MetricSettings) -> None:
    """Add the error of a calibrated model, and widen the interval of the error by it."""
    results[ECE_IF_CALIBRATED] = _error_if_calibrated(questions, settings)
    results[ECE] = _down_to_calibrated(results[ECE], results[ECE_IF_CALIBRATED])


def _measure_texts(records: pa.Table, settings: MetricSettings) -> dict[str, Measurement]:
    texts, resampling = text_set(records), Resampling.of_records(records, settings)
    metrics = text_metrics(texts)
    estimates = estimate(metrics, texts, resampling.weights, resampling.clusters)
    results = _results(estimates, metrics, texts, resampling, settings)
    if has_tokens(records):
        tokens, of_tokens = scored_tokens(records), Resampling.of_tokens(records, settings)
        next_token = next_token_metrics(tokens, settings)
        results |= _results(estimate(next_token, tokens, None, of_tokens.clusters), next_token, tokens, of_tokens, settings)
    return results


def _results(
    estimates: Mapping[str, PointEstimate],
    metrics: Mapping[str, Statistic[Any]],
    questions: Any,
    resampling: Resampling,
    settings: MetricSettings,
) -> dict[str, Measurement]:
    """Return estimates as results; those of what is fitted, which `metrics` do not have, are over all questions."""
    return {
        name: summarize(
            Measurement,
            point_estimate,
            metrics[name].count(questions) if name in metrics else len(questions),
            resampling,
            settings.confidence_level,
        )
        for name, point_estimate in estimates.items()
    }


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
