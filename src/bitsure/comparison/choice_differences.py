"""The differences of two models on one task's questions with choices."""

from __future__ import annotations

import pyarrow as pa

from bitsure.comparison.difference_tests import with_paired_interval, with_test
from bitsure.comparison.question_differences import ComparedPairs
from bitsure.comparison.threshold_differences import threshold_differences
from bitsure.config.metric import MetricSettings
from bitsure.metrics import paper_compat
from bitsure.metrics.choice_metrics import choice_metrics
from bitsure.metrics.confidence_shift import shift_metrics
from bitsure.metrics.estimation import estimate
from bitsure.metrics.metric_names import PAPER_COMPAT
from bitsure.metrics.own_metrics import own_metrics
from bitsure.metrics.pair_metrics import pair_metrics
from bitsure.metrics.paper_intervals import paper_estimates
from bitsure.metrics.point_estimate import PointEstimate
from bitsure.metrics.question_pairs import AnswerPairs, QuestionPairs
from bitsure.metrics.questions import question_set
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.retrieval_metrics import questions_by_place, retrieval_metrics
from bitsure.metrics.significance import paired_t_test
from bitsure.metrics.task_results import summarize
from bitsure.metrics.temperature import assign_folds
from bitsure.results.measurement import Difference

STUDY_ALPHA = 0.01  # of the study's own test


def compare_choices(
    before: pa.Table, after: pa.Table, settings: MetricSettings, alpha: float, cost_quantized: float
) -> tuple[dict[str, Difference], dict[str, PointEstimate]]:
    """Return every difference on one task, and the estimates behind those that are averaged over tasks.

    Args:
        before: The task's records of full precision.
        after: Those of the quantized model, of the same questions in the same order.
        settings: How records become numbers.
        alpha: The significance level of the task's primary test, at least, in (0, 1).
        cost_quantized: The cost of an answer of the quantized model, where one of the full model costs 1.
    """
    full, quantized = (question_set(side, settings.normalization) for side in (before, after))
    resampling = Resampling.of_records(after, settings)
    pairs = QuestionPairs(full, quantized, assign_folds(len(full), resampling.clusters, settings.seed))
    compared = ComparedPairs(pairs, resampling, settings)
    one_model = choice_metrics(full, settings) | own_metrics(settings, full, quantized)
    # The shifts are no part of the average: one confidence means another certainty on each task.
    compared.add_numbers(one_model, pair_metrics(), shift_metrics(full))
    compared.add(*threshold_differences(pairs, resampling, compared.level))
    compared.add_uses_and_tests(alpha, cost_quantized)
    compared.add(_by_place(compared, before, after, settings.normalization))
    if settings.paper_compat:
        compared.add(_paper_compat(before, after, resampling, compared.level))
    return compared.results, compared.estimates


def _by_place(compared: ComparedPairs, before: pa.Table, after: pa.Table, normalization: str) -> dict[str, Difference]:
    """Return the differences over the questions of each length and depth, which are many and are not tested."""
    metrics, pairs, resampling = retrieval_metrics(after), compared.pairs, compared.resampling
    estimates = estimate(metrics, pairs.quantized, resampling.weights, resampling.clusters, minus=pairs.full)
    results = {}
    for name, point_estimate in estimates.items():
        now, was = point_estimate.sides
        n = metrics[name].count(pairs)
        results[name] = summarize(Difference, point_estimate, n, resampling, compared.level, baseline=was, quantized=now)
    for place, here in questions_by_place(after).items():
        alone = AnswerPairs(*(question_set(side.filter(pa.array(here)), normalization) for side in (before, after)))
        name = place.metric("accuracy")
        results[name] = with_paired_interval(results[name], alone, len(alone), compared.level)
    return results


def _paper_compat(before: pa.Table, after: pa.Table, resampling: Resampling, level: float) -> dict[str, Difference]:
    """Return the study's numbers, with its t-test of full − quantized, the other way round than everything else here."""
    n, results = len(paper_compat.kept(after)), {}
    for name, point_estimate in paper_estimates(after, resampling.weights, resampling.clusters, minus=before).items():
        sides = dict(zip(("quantized", "baseline"), point_estimate.sides, strict=True))
        results[f"{PAPER_COMPAT}{name}"] = summarize(Difference, point_estimate, n, resampling, level, **sides)
    changes = paper_compat.gold_probability(before) - paper_compat.gold_probability(after)
    test = paired_t_test(changes, None, None, level, STUDY_ALPHA)
    studied = f"{PAPER_COMPAT}conf_true"
    results[studied] = with_test(results[studied], test, family="the study's own")
    return results
