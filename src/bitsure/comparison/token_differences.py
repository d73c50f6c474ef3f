"""The differences of two models on the tokens of one text: fidelity over the vocabulary, and next-token calibration."""

from __future__ import annotations

import pyarrow as pa

from bitsure.comparison.difference_tests import with_test
from bitsure.config.metric import MetricSettings
from bitsure.metrics.answer_positions import position_metrics
from bitsure.metrics.estimation import estimate, standard_error
from bitsure.metrics.fidelity import TOKEN_ERRORS, fidelity_metrics, percentiles, token_pairs
from bitsure.metrics.next_token import next_token_metrics, scored_tokens
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.significance import z_test
from bitsure.metrics.task_results import summarize
from bitsure.records.text_units import is_of_written, token_column
from bitsure.results.measurement import Difference


def token_differences(before: pa.Table, after: pa.Table, settings: MetricSettings) -> dict[str, Difference]:
    """Return every difference over the tokens of one text.

    Numbers over the vocabulary exist where the quantized model was compared with the very model that `before` is of.

    Args:
        before: The full model's records, with tokens.
        after: The quantized model's, of the same documents or windows in the same order.
        settings: Bins and level.
    """
    resampling, level = Resampling.of_tokens(after, settings), settings.confidence_level
    clusters = resampling.clusters
    assert clusters is not None  # tokens come in documents or windows
    full, quantized = scored_tokens(before), scored_tokens(after)
    results = {}
    of_models = estimate(next_token_metrics(full, settings), quantized, None, clusters, minus=full)
    for name, point_estimate in of_models.items():
        now, was = point_estimate.sides
        difference = summarize(Difference, point_estimate, len(full), resampling, level, baseline=was, quantized=now)
        results[name] = with_test(difference, z_test(point_estimate, level))
    if (pairs := token_pairs(before, after)) is None:
        return results
    metrics = fidelity_metrics(pairs)
    if is_of_written(after["task"][0].as_py()):
        metrics |= position_metrics(token_column(after, "positions"))
    for name, point_estimate in (estimate(metrics, pairs, None, clusters) | percentiles(pairs, clusters)).items():
        n = metrics[name].count(pairs) if name in metrics else len(pairs)
        results[name] = summarize(Difference, point_estimate, n, resampling, level)
    for name in TOKEN_ERRORS:
        error = standard_error(metrics[name].value_and_influence(pairs)[1], None)
        results[name] = results[name].model_copy(update={"token_standard_error": error})
    return results
