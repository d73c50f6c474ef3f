"""What a sweep shows across models and random draws: means over seeds, and how much models differ."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Protocol

from bitsure.metrics.across import heterogeneity, over_draws
from bitsure.metrics.metric_names import MACRO
from bitsure.metrics.multiple_testing import benjamini_hochberg
from bitsure.metrics.task_results import interval_of_mean
from bitsure.sweep.report.study_row import CALIBRATION_SEEDS, TRAINING_SEEDS, StudyRow

STUDY = {  # the study's metrics, in its order
    "accuracy": "accuracy",
    "expected_calibration_error": "calibration error",
    "confidence": "confidence",
    "true_label_prob": "true-label probability",
    "entropy": "entropy",
}
TESTED = ("true_label_prob", "accuracy", "confidence", "nll", "expected_calibration_error")


def over_calibration(rows: list[StudyRow], level: float) -> list[StudyRow]:
    """Return one row for each model, task and metric: the mean over calibration seeds where there are several.

    Args:
        rows: Rows of single cells.
        level: Confidence level of the intervals, in (0, 1).
    """
    return _means(rows, _same_model, lambda row: row.calib_seed, CALIBRATION_SEEDS, level)


def over_training(rows: list[StudyRow], level: float) -> list[StudyRow]:
    """Return one row for each size of a series: the mean over training seeds where there are several.

    Args:
        rows: Rows of single models, as `over_calibration` returns them.
        level: Confidence level of the intervals, in (0, 1).
    """
    return _means(rows, _same_size, lambda row: row.training_seed, TRAINING_SEEDS, level)


def _same_size(row: StudyRow) -> tuple[Hashable, ...]:
    """Return the columns that rows of one size and quantizer share, whatever was drawn."""
    text = (row.calib_data, row.calib_nsamples, row.calib_seqlen)
    return row.series, row.parameters, row.quantizer, row.method, row.setting, *text, row.task, row.metric


def _same_model(row: StudyRow) -> tuple[Hashable, ...]:
    """Return the columns that rows of one model and quantizer share, whatever calibration text was drawn."""
    return *_same_size(row), row.model, row.training_seed


def _means(
    rows: list[StudyRow],
    same: Callable[[StudyRow], Hashable],
    seed: Callable[[StudyRow], int | None],
    kind: str,
    level: float,
) -> list[StudyRow]:
    groups: dict[Hashable, list[StudyRow]] = {}
    for row in rows:
        groups.setdefault(same(row), []).append(row)
    means: list[StudyRow] = []
    for group in groups.values():
        told_apart = len({seed(row) for row in group} - {None}) == len(group) > 1
        mean = _mean_over(group, kind, level) if told_apart else None
        means += [mean] if mean else group
    return means


def _mean_over(rows: list[StudyRow], kind: str, level: float) -> StudyRow | None:
    """Return the mean of rows that differ by a random draw alone; None if an error is unknown."""
    errors = [row.standard_error for row in rows if row.standard_error is not None]
    if len(errors) < len(rows):
        return None
    value = over_draws([row.value for row in rows], errors, level)
    mean = replace(
        rows[0],
        value=value.value,
        ci_low=value.ci_low,
        ci_high=value.ci_high,
        standard_error=value.standard_error,
        tests=None,
        p_adjusted=None,
        significant=False,
        draws={**rows[0].draws, kind: len(rows)},
        calib_seed=None if kind == CALIBRATION_SEEDS else rows[0].calib_seed,
        training_seed=None if kind == TRAINING_SEEDS else rows[0].training_seed,
    )
    changes = [row.delta for row in rows if row.delta is not None]
    errors = [row.delta_standard_error for row in rows if row.delta_standard_error is not None]
    if min(len(changes), len(errors)) < len(rows):
        return mean
    delta = over_draws(changes, errors, level)
    return replace(
        mean,
        delta=delta.value,
        delta_ci_low=delta.ci_low,
        delta_ci_high=delta.ci_high,
        delta_standard_error=delta.standard_error,
        delta_between_draws=delta.between,
    )


def mean_over_tasks(rows: list[StudyRow]) -> StudyRow:
    """Return the mean of one run's rows of a metric on several tasks, whose errors are taken for independent.

    Args:
        rows: The rows; a single one is returned as it is.
    """
    if len(rows) == 1:
        return rows[0]
    _, low, high = _mean_with_interval([(row.value, row.ci_low, row.ci_high) for row in rows])
    delta, delta_low, delta_high = _mean_with_interval([(row.delta, row.delta_ci_low, row.delta_ci_high) for row in rows])
    return replace(
        rows[0],
        task=MACRO,
        mean_over=", ".join(row.task for row in rows),
        n=len(rows),
        value=fmean(row.value for row in rows),
        ci_low=low,
        ci_high=high,
        baseline=_mean_with_interval([(row.baseline, None, None) for row in rows])[0],
        delta=delta,
        delta_ci_low=delta_low,
        delta_ci_high=delta_high,
        standard_error=None,
        delta_standard_error=None,
        delta_between_draws=None,
        tests=None,
        p_adjusted=None,
        significant=False,
    )


def _mean_with_interval(numbers: list[tuple[float | None, ...]]) -> tuple[float | None, ...]:
    """Return the mean of numbers with intervals and its interval; each is None where any of them is."""
    values = [value for value, _, _ in numbers if value is not None]
    if len(values) < len(numbers):
        return None, None, None
    intervals = [(low, high) for _, low, high in numbers if low is not None and high is not None]
    ends = interval_of_mean(values, intervals) if len(intervals) == len(values) else (None, None)
    return fmean(values), *ends


def means_over_draws(models: list[StudyRow], sizes: list[StudyRow]) -> list[StudyRow]:
    """Return the rows of tested metrics that are means over random draws, each once.

    Args:
        models: A row for each model, task and metric, as `over_calibration` returns them.
        sizes: A row for each size, task and metric, as `over_training` returns them; a size with one model is the same object.
    """
    each_once = {id(row): row for row in (*models, *sizes)}.values()
    return [row for row in each_once if row.metric in TESTED and row.draws and row.delta_between_draws is not None]


@dataclass(slots=True, kw_only=True)
class ModelSpread:
    """How much models differ in what one quantizer changes, on one task and metric."""

    quantizer: str
    setting: str
    label: str  # of the quantizer with its setting
    task: str
    metric: str
    models: int
    smallest: float  # the models' changes, in the metric's unit
    largest: float
    q: float  # Cochran's Q
    i_squared: float  # share of the changes' variance beyond their errors, in [0, 1]
    tau: float  # standard deviation between models, in the metric's unit
    p_value: float | None
    p_adjusted: float | None = None  # Benjamini–Hochberg; set by `adjust`


def model_spreads(rows: list[StudyRow]) -> list[ModelSpread]:
    """Return whether models differ by more than their errors explain, for each quantizer, task and metric.

    Args:
        rows: Rows of single models.

    Returns:
        Exploratory results, whose p-values are adjusted over all of them by Benjamini–Hochberg.
    """
    groups: dict[tuple[str, str, str, str], list[tuple[str, float, float]]] = {}
    labels: dict[tuple[str, str], str] = {}
    for row in rows:
        if not row.is_full_precision and row.delta is not None and row.delta_standard_error is not None:
            key = (row.quantizer, row.setting, row.task, row.metric)
            labels[row.quantizer, row.setting] = row.label
            groups.setdefault(key, []).append((row.model, row.delta, row.delta_standard_error))
    spreads = []
    for (quantizer, setting, task, metric), group in groups.items():
        models, changes, errors = zip(*group, strict=True)
        result = heterogeneity(changes, errors)
        if result and len(set(models)) == len(group):
            spread = ModelSpread(
                quantizer=quantizer,
                setting=setting,
                label=labels[quantizer, setting],
                task=task,
                metric=metric,
                models=result.models,
                smallest=min(changes),
                largest=max(changes),
                q=result.q,
                i_squared=result.i_squared,
                tau=result.tau,
                p_value=result.p_value,
            )
            spreads.append(spread)
    adjust(spreads)
    return spreads


class Tested(Protocol):
    """A result with a p-value."""

    p_value: float | None
    p_adjusted: float | None


def adjust(results: Sequence[Tested]) -> None:
    """Set `p_adjusted` of every result that has a p-value (Benjamini–Hochberg over all of them)."""
    tested = [result for result in results if result.p_value is not None]
    p_values = [result.p_value for result in tested if result.p_value is not None]
    for result, p in zip(tested, benjamini_hochberg(p_values), strict=True):
        result.p_adjusted = p
