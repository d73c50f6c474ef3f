"""How much larger conformal answer sets become, each model at its own threshold, with an interval that covers."""

from __future__ import annotations

import math

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.bootstrap import count_units, t_quantile
from bitsure.metrics.conformal import MISCOVERAGE, AnswerSets, least_probabilities
from bitsure.metrics.estimation import standard_error
from bitsure.metrics.point_estimate import INFLUENCE, PointEstimate


def set_size_change(
    full: AnswerSets, quantized: AnswerSets, fold: IntArray, clusters: IntArray | None, level: float
) -> PointEstimate:
    """Return the mean size of the quantized model's answer sets less that of the full model's.

    The error is the larger of two: with the thresholds held fixed, and with them fitted again. The second one vanishes where
    nearly all answers are right, since a set then holds the answer or nothing, as often as was promised; the first one ignores
    the fit. z² / n² is added to the variance, for sets of other sizes that were too rare to be seen.

    Args:
        full: The full model's sets, at thresholds of its own.
        quantized: The quantized model's sets for the same n questions, at thresholds of its own.
        fold: The fold of each question, shape (n,), from 0.
        clusters: Each question's cluster, shape (n,), from 0; None if every question is alone.
        level: The confidence level of the interval, in (0, 1).
    """
    change = quantized.size - full.size
    refitted = change + _threshold_influence(quantized, fold, clusters) - _threshold_influence(full, fold, clusters)
    value = float(change.mean())
    error = max(standard_error(psi - value, clusters) for psi in (change, refitted))
    unseen = t_quantile(math.inf, level) / len(change)
    largest = float(full.questions.n_choices.max())
    return PointEstimate(
        value,
        math.hypot(error, unseen),
        None,
        INFLUENCE,
        least=-largest,
        most=largest,
        units=count_units(len(change), clusters),
        sides=(float(quantized.size.mean()), float(full.size.mean())),
    )


def _threshold_influence(sets: AnswerSets, fold: IntArray, clusters: IntArray | None) -> FloatArray:
    """Return each question's influence on the sizes of all sets through the threshold, shape (n,); its mean is 0.

    The threshold is a quantile: a covered question makes the sets smaller, one that is missed makes them larger. The influence
    is −(covered − mean) · dS/dβ, where S is the mean size at a promised coverage β. dS/dβ is the slope between promises half
    a miscoverage to either side; the usual formula divides by a density, which is hard to estimate.
    """
    wider, narrower = (
        AnswerSets(sets.questions, least_probabilities(sets.questions, fold, clusters, share))
        for share in (MISCOVERAGE / 2, MISCOVERAGE * 3 / 2)
    )
    covered = float((wider.correct - narrower.correct).mean())
    slope = float((wider.size - narrower.size).mean()) / covered if covered > 0 else 0.0
    influence: FloatArray = -slope * (sets.correct - sets.correct.mean())
    return influence
