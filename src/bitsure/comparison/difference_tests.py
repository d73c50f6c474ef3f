"""Differences completed by their tests and by intervals that fit better."""

from __future__ import annotations

from typing import Any

from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.flips import agresti_min, newcombe
from bitsure.metrics.question_pairs import AnswerPairs
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.significance import SignificanceTest, cluster_robust_t_test, paired_t_test
from bitsure.results.measurement import Difference


def with_test(difference: Difference, test: SignificanceTest | None, **fields: Any) -> Difference:
    """Return a difference with the results of a test, if there is one, and with other fields replaced."""
    return difference.model_copy(update=(test.fields() if test else {}) | fields)


def with_primary_test(
    difference: Difference, changes: FloatArray, resampling: Resampling, level: float, alpha: float
) -> tuple[Difference, Difference | None]:
    """Return the primary difference with its test, and with the cluster-robust one; None where every question is alone.

    Args:
        difference: The difference of true_label_prob.
        changes: Each question's change, shape (n,).
        resampling: How the questions are resampled.
        level: The confidence level of the intervals, in (0, 1).
        alpha: The significance level of the test, in (0, 1).
    """
    robust = None
    if resampling.clusters is not None:
        test, (low, high) = cluster_robust_t_test(changes, resampling.clusters, level, alpha)
        interval = {"ci_low": low, "ci_high": high, "interval": "t, cluster-robust"}
        robust = with_test(difference, test, **interval, resampled=f"none: the variance of {resampling.unit}")
    test = paired_t_test(changes, resampling.weights, resampling.clusters, level, alpha)
    return with_test(difference, test), robust


def with_paired_interval(difference: Difference, pairs: AnswerPairs[Any], units: int, level: float) -> Difference:
    """Return the difference of two accuracies with an interval at least as wide as one of paired proportions.

    Resampling and t cannot see flips that did not happen; an interval of proportions cannot see clusters.

    Args:
        difference: The difference with its own interval; one without is returned as it is.
        pairs: Both models' answers.
        units: The number of questions, or of clusters. Below `FEWEST` the interval is Newcombe's, which stays in [−1, 1].
        level: The confidence level, in (0, 1).
    """
    if difference.ci_low is None or difference.ci_high is None:
        return difference
    name, (low, high) = ("Newcombe's", newcombe(pairs, level)) if units < FEWEST else ("Agresti–Min", agresti_min(pairs, level))
    ends = {"ci_low": min(difference.ci_low, low), "ci_high": max(difference.ci_high, high)}
    return difference.model_copy(update=ends | {"interval": f"{difference.interval}, at least as wide as {name}"})
