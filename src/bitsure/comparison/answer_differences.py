"""The differences of two models on one task whose answers they write."""

from __future__ import annotations

import pyarrow as pa

from bitsure.comparison.question_differences import ComparedPairs
from bitsure.config.schema import MetricSettings
from bitsure.metrics.deferral_curve import deferral_metrics
from bitsure.metrics.own_metrics import own_metrics
from bitsure.metrics.pair_metrics import flip_metrics
from bitsure.metrics.point_estimate import PointEstimate
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.temperature import assign_folds
from bitsure.metrics.written_answers import WrittenPairs, answer_metrics, answer_set
from bitsure.results.measurement import Difference


def compare_answers(
    before: pa.Table, after: pa.Table, settings: MetricSettings, alpha: float, cost_quantized: float
) -> tuple[dict[str, Difference], dict[str, PointEstimate]]:
    """Return every difference on one task, and the estimates behind those that are averaged over tasks.

    Both models wrote answers of their own to the same questions. So there is no divergence of the two: what is paired is
    whether each is right, and how sure each model is of its own.

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
    compared.add_numbers(answer_metrics(full, settings) | own_metrics(full, settings), flip_metrics() | deferral_metrics())
    compared.add_uses_and_tests(alpha, cost_quantized)
    return compared.results, compared.estimates
