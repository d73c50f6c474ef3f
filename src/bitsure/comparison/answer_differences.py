"""The differences of two models on one task whose answers they write."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from bitsure.comparison.question_differences import ComparedPairs, metric_differences
from bitsure.config.metric import MetricSettings
from bitsure.metrics.deferral_curve import deferral_metrics
from bitsure.metrics.divergence import (
    answer_divergence,
    divergence_metrics,
    text_divergence_metrics,
    token_divergence_metrics,
)
from bitsure.metrics.estimation import estimate
from bitsure.metrics.own_metrics import own_metrics
from bitsure.metrics.pair_metrics import flip_metrics
from bitsure.metrics.point_estimate import PointEstimate
from bitsure.metrics.preference import preference_metrics, preferences
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.task_results import summarize
from bitsure.metrics.temperature import assign_folds
from bitsure.metrics.written_answers import WrittenPairs, answer_metrics, answer_set, open_answer_metrics
from bitsure.records.answer_units import have_other_tokens
from bitsure.results.measurement import Difference

log = logging.getLogger(__name__)

FLIPS = "flip_rate"


def compare_answers(
    before: pa.Table, after: pa.Table, settings: MetricSettings, alpha: float, cost_quantized: float
) -> tuple[dict[str, Difference], dict[str, PointEstimate]]:
    """Return every difference on one task, and the estimates behind those that are averaged over tasks.

    Both models wrote answers of their own to the same questions. So there is no divergence of their distributions: what is
    paired is whether each is right, how sure each model is of its own, and where the two part.

    Args:
        before: The task's records of full precision.
        after: Those of the quantized model, of the same questions in the same order.
        settings: How records become numbers.
        alpha: The significance level of the task's primary test, at least, in (0, 1).
        cost_quantized: The cost of an answer of the quantized model, where one of the full model costs 1.
    """
    full, quantized = (answer_set(side, settings) for side in (before, after))
    resampling = Resampling.of_records(after, settings)
    pairs = WrittenPairs(full, quantized, assign_folds(len(full), resampling.clusters, settings.seed))
    compared = ComparedPairs(pairs, resampling, settings)
    compared.add_numbers(
        answer_metrics(full, settings) | own_metrics(settings, full, quantized), flip_metrics() | deferral_metrics()
    )
    compared.add_uses_and_tests(alpha, cost_quantized)
    compared.add(_divergence(before, after, resampling, settings) | _preferences(before, after, resampling, settings))
    return compared.results, compared.estimates


def compare_open_answers(before: pa.Table, after: pa.Table, settings: MetricSettings) -> dict[str, Difference]:
    """Return every difference on one task without right answers; arguments are as in `compare_answers`.

    Nothing is right or wrong, so that there is no accuracy, calibration or primary test: what is compared is how sure the
    models are, where their answers part, and which full precision finds likelier.
    """
    full, quantized = (answer_set(side, settings) for side in (before, after))
    resampling, level = Resampling.of_records(after, settings), settings.confidence_level
    pairs = WrittenPairs(full, quantized, np.zeros(len(full), dtype=np.int64))  # nothing is fitted
    results, _ = metric_differences(pairs, open_answer_metrics(full, settings), resampling, level)
    [flip_rate] = estimate({FLIPS: flip_metrics()[FLIPS]}, pairs, resampling.weights, resampling.clusters).values()
    results[FLIPS] = summarize(Difference, flip_rate, len(pairs), resampling, level)
    return results | _divergence(before, after, resampling, settings) | _preferences(before, after, resampling, settings)


def _divergence(before: pa.Table, after: pa.Table, resampling: Resampling, settings: MetricSettings) -> dict[str, Difference]:
    """Return where the two models' answers part; tokens are resampled with the answers that they are of.

    Of models with other vocabularies texts alone are compared.
    """
    pairs, level = answer_divergence(before, after), settings.confidence_level
    other_tokens = have_other_tokens(before, after)
    if other_tokens:
        log.warning("%s: the two models have other tokenizers, so that texts alone are compared", after["task"][0].as_py())
    metrics = text_divergence_metrics() if other_tokens else text_divergence_metrics() | divergence_metrics()
    of_answers = estimate(metrics, pairs, resampling.weights, resampling.clusters)
    results = {
        name: summarize(Difference, point_estimate, metrics[name].count(pairs), resampling, level)
        for name, point_estimate in of_answers.items()
    }
    if other_tokens:
        return results
    tokens = pairs.at_risk
    clusters = tokens.answer if resampling.clusters is None else resampling.clusters[tokens.answer]
    of_tokens = Resampling(len(tokens), clusters, settings)
    of_tokens.unit = resampling.unit
    token_metrics = token_divergence_metrics(tokens)
    for name, point_estimate in estimate(token_metrics, tokens, None, clusters).items():
        results[name] = summarize(Difference, point_estimate, token_metrics[name].count(tokens), of_tokens, level)
    return results


def _preferences(before: pa.Table, after: pa.Table, resampling: Resampling, settings: MetricSettings) -> dict[str, Difference]:
    """Return which answers full precision finds likelier; nothing where it did not read the quantized model's."""
    if (pairs := preferences(before, after)) is None:
        return {}
    estimates = estimate(preference_metrics(), pairs, resampling.weights, resampling.clusters)
    return {
        name: summarize(Difference, point_estimate, len(pairs), resampling, settings.confidence_level)
        for name, point_estimate in estimates.items()
    }
