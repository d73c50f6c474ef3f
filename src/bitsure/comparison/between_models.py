"""Does quantization hurt one model more than another?

A change that is significant for one model and not for another shows nothing. What does: whether the changes vary more than
their errors allow (Cochran's Q), and each pair of models on the questions that both were asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from bitsure.comparison.changes import AnswerChanges, in_common, resampled_means
from bitsure.config.metric import MetricSettings
from bitsure.metrics.across import Contrast, Heterogeneity, contrasts, heterogeneity
from bitsure.metrics.bootstrap import resample_weights
from bitsure.metrics.estimation import FEWEST, estimate
from bitsure.metrics.metric_names import PRIMARY
from bitsure.metrics.statistic import mean


@dataclass(frozen=True)
class QuantizedModel:
    """One quantized model: task → what quantization changed in each question."""

    name: str
    changes: dict[str, AnswerChanges]


@dataclass(frozen=True)
class MeanChange:
    """The change of the mean true-label probability, with its interval."""

    value: float
    ci_low: float
    ci_high: float
    standard_error: float


@dataclass(frozen=True)
class PairContrast:
    """How much more the second model changed than the first, on the n questions that both were asked."""

    first: str
    second: str
    contrast: Contrast
    n: int


@dataclass(frozen=True)
class BetweenModels:
    """How models differ on one task in what quantization changed."""

    mean_changes: dict[str, MeanChange]  # model → its change
    heterogeneity: Heterogeneity | None  # None with fewer than two models of at least FEWEST questions or clusters
    pairs: list[PairContrast]


def compare_models(models: Sequence[QuantizedModel], metric: MetricSettings) -> dict[str, BetweenModels]:
    """Return task → how the models that were asked its questions differ."""
    names = dict.fromkeys(task for model in models for task in model.changes)
    return {task: _compare_on([model for model in models if task in model.changes], task, metric) for task in names}


def _compare_on(models: Sequence[QuantizedModel], task: str, metric: MetricSettings) -> BetweenModels:
    means = {model.name: mean_change(model.changes[task], metric) for model in models}
    many = [means[model.name] for model in models if model.changes[task].units >= FEWEST]  # of few, the error is a guess
    spread = heterogeneity([change.value for change in many], [change.standard_error for change in many])
    pairs = [contrast_pair(first, second, task, metric) for first, second in combinations(models, 2)]
    return BetweenModels(means, spread, [pair for pair in pairs if pair is not None])


def mean_change(model_changes: AnswerChanges, metric: MetricSettings) -> MeanChange:
    """Return one model's mean change on one task; questions are resampled by their clusters."""
    weights = resample_weights(len(model_changes), metric.resamples, metric.seed, model_changes.cluster)
    [change] = estimate({PRIMARY: mean(lambda c: c.values[PRIMARY])}, model_changes, weights, model_changes.cluster).values()
    return MeanChange(change.value, *change.interval(metric.confidence_level), change.standard_error)


def contrast_pair(first: QuantizedModel, second: QuantizedModel, task: str, metric: MetricSettings) -> PairContrast | None:
    """Return how much more `second` changed than `first` on the questions of a task that both were asked.

    Questions are resampled with both models' answers, by their clusters. With fewer than two of them the result is None.
    """
    common = in_common(first.changes[task], second.changes[task])
    units = common[0].units
    if units < 2:
        return None
    means, replicates = resampled_means(list(common), metric)
    [contrast] = contrasts(means[PRIMARY], replicates[PRIMARY], [(0, 1)], metric.confidence_level, units)
    return PairContrast(first.name, second.name, contrast, len(common[0]))
