"""The differences of two models on one task's continuations or whole texts."""

from __future__ import annotations

import logging
import math

import pyarrow as pa

from bitsure.comparison.difference_tests import with_paired_interval, with_primary_test, with_test
from bitsure.comparison.token_differences import token_differences
from bitsure.config.metric import MetricSettings
from bitsure.metrics.estimation import estimate
from bitsure.metrics.flips import mcnemar
from bitsure.metrics.metric_names import (
    BASELINE_NLL_BELOW_GUESSING,
    BITS_PER_BYTE,
    CLUSTER_ROBUST,
    CORRELATION,
    FORECAST,
    JUDGED,
    LN_PERPLEXITY_RATIO,
    PERPLEXITY_RATIO,
    PRIMARY,
)
from bitsure.metrics.pair_metrics import text_pair_metrics
from bitsure.metrics.point_estimate import LARGEST_EXPONENT
from bitsure.metrics.question_pairs import AnswerPairs
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.significance import paired_t_test, z_test
from bitsure.metrics.task_results import summarize
from bitsure.metrics.text_metrics import TextSet, nll_below_guessing, text_metrics, text_set
from bitsure.metrics.token_correlation import token_correlation, token_moments
from bitsure.records.record import is_text
from bitsure.records.text_units import has_tokens, vocabulary_of
from bitsure.results.measurement import Difference

log = logging.getLogger(__name__)


def compare_texts(before: pa.Table, after: pa.Table, settings: MetricSettings, alpha: float) -> dict[str, Difference]:
    """Return every difference on one task without choices.

    The NLL has a paired t-test. For texts, whose NLL is one sum over another, it tests what each text adds to the difference
    (linearized: Cochran 1977, section 6.4); texts of logs, which do not count tokens, have none. Texts that were cut into
    windows also have the ratio of the perplexities and the correlation of the tokens' NLL, and how far full precision is below
    the NLL of guessing, where its vocabulary is known.

    Args:
        before: The task's records of full precision.
        after: Those of the quantized model, of the same texts in the same order.
        settings: How records become numbers.
        alpha: The significance level of the task's test, at least, in (0, 1).
    """
    full, quantized = text_set(before), text_set(after)
    resampling, level = Resampling.of_records(after, settings), settings.confidence_level
    of_quantized = text_metrics(quantized)
    metrics = {name: metric for name, metric in text_metrics(full).items() if name in of_quantized}
    results: dict[str, Difference] = {}
    for name, point_estimate in estimate(metrics, quantized, resampling.weights, resampling.clusters, minus=full).items():
        now, was = point_estimate.sides
        fields = {key: getattr(point_estimate, key) for key in FORECAST} if name in JUDGED else {}
        difference = summarize(Difference, point_estimate, len(full), resampling, level, baseline=was, quantized=now, **fields)
        results[name] = with_test(difference, z_test(point_estimate, level))
    if "nll" in metrics:
        (now, now_influence), (was, was_influence) = (metrics["nll"].value_and_influence(side) for side in (quantized, full))
        changes = now - was + now_influence - was_influence
        results["nll"] = with_test(results["nll"], paired_t_test(changes, None, resampling.clusters, level, alpha))
    if full.bytes is None:
        _add_flips(results, AnswerPairs(full, quantized), resampling, level)
        changes = quantized.true_label_prob - full.true_label_prob
        results[PRIMARY], robust = with_primary_test(results[PRIMARY], changes, resampling, level, alpha)
        if robust is not None:
            results[CLUSTER_ROBUST] = robust
    elif full.words is None:
        results |= perplexity_ratios(results["nll"])
        if vocabulary := vocabulary_of(before):
            below = {BASELINE_NLL_BELOW_GUESSING: nll_below_guessing(vocabulary)}
            for name, point_estimate in estimate(below, full, resampling.weights, resampling.clusters).items():
                results[name] = summarize(Difference, point_estimate, len(full), resampling, level)
        moments = token_moments(before, after)
        correlation = estimate({CORRELATION: token_correlation()}, moments, resampling.weights, resampling.clusters)[
            CORRELATION
        ]
        results[CORRELATION] = summarize(Difference, correlation, len(full), resampling, level)
    if has_tokens(before) and has_tokens(after):
        results |= token_differences(before, after, settings)
    return results


def has_other_tokens(before: pa.Table, after: pa.Table) -> bool:
    """Return whether two models' tokenizers cut the same documents of a text, which was scored token by token, otherwise."""
    return is_text(after) and text_set(after).words is None and not before["choice_tokens"].equals(after["choice_tokens"])


def compare_bytes(before: pa.Table, after: pa.Table, settings: MetricSettings) -> dict[str, Difference]:
    """Return the difference in bits per byte: of models with other tokenizers, nothing of a token can be compared.

    Args:
        before: One model's records of a text.
        after: The other's, of the same documents in the same order.
        settings: How records become numbers.
    """
    full, quantized = text_set(before), text_set(after)
    resampling, level = Resampling.of_records(after, settings), settings.confidence_level
    metric = {BITS_PER_BYTE: text_metrics(full)[BITS_PER_BYTE]}
    [difference] = estimate(metric, quantized, resampling.weights, resampling.clusters, minus=full).values()
    now, was = difference.sides
    result = summarize(Difference, difference, len(full), resampling, level, baseline=was, quantized=now)
    log.warning("%s: the two models have other tokenizers, so that bits per byte alone are compared", after["task"][0].as_py())
    return {BITS_PER_BYTE: with_test(result, z_test(difference, level))}


def perplexity_ratios(nll: Difference) -> dict[str, Difference]:
    """Return the quantized perplexity ÷ full precision's, and its logarithm, from the difference of the NLL of a token.

    Args:
        nll: The difference with its interval, nats a token.
    """
    kept = {name: getattr(nll, name) for name in ("n", "interval", "resampled", "n_clusters") if name in nll.model_fields_set}
    logarithm = Difference(value=nll.value, ci_low=nll.ci_low, ci_high=nll.ci_high, standard_error=nll.standard_error, **kept)
    value, low, high = (
        None if end is None else math.exp(min(end, LARGEST_EXPONENT)) for end in (nll.value, nll.ci_low, nll.ci_high)
    )
    error = None if value is None or nll.standard_error is None else value * nll.standard_error
    ratio = Difference(value=value, ci_low=low, ci_high=high, standard_error=error, **kept)
    return {LN_PERPLEXITY_RATIO: logarithm, PERPLEXITY_RATIO: ratio}


def _add_flips(results: dict[str, Difference], pairs: AnswerPairs[TextSet], resampling: Resampling, level: float) -> None:
    """Add what became right or wrong by greedy decoding, with its test."""
    for name, point_estimate in estimate(text_pair_metrics(), pairs, resampling.weights, resampling.clusters).items():
        results[name] = summarize(Difference, point_estimate, len(pairs), resampling, level)
    results["accuracy"] = with_paired_interval(results["accuracy"], pairs, resampling.units, level)
    results["correct_to_wrong"] = with_test(results["correct_to_wrong"], mcnemar(pairs, resampling.clusters, level))
