"""The study's picture in numbers: how far the right answer shifts, by the full model's confidence.

A uniform shift of the log-odds moves probabilities far where a model is unsure and little where it is sure: that is the slope
of the softmax. So the log-odds stand beside the probabilities, over the same questions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.bins import Bins
from bitsure.metrics.question_pairs import QuestionPairs
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.statistic import SumStatistic, mean

BINS = 10  # of confidence, of equal width
PROBABILITY_SHIFT, LOG_ODDS_SHIFT = (
    tuple(f"{what}_shift_{10 * k}_to_{10 * (k + 1)}_percent" for k in range(BINS)) for what in ("probability", "log_odds")
)


def shift_metrics(full: QuestionSet) -> dict[str, SumStatistic[QuestionPairs]]:
    """Return the mean change of the right answer's probability, and of its log-odds, in each bin of confidence.

    Args:
        full: The full model's answers. Bins of confidence that hold none of them have no metric.

    Reference: Proskurina et al. 2024 for the change of the probability.
    """
    bins = [int(k) for k in np.unique(_bin(full))]
    probability = {PROBABILITY_SHIFT[k]: mean(_probability_change, among=_in_bin(k), least=-1.0, most=1.0) for k in bins}
    return probability | {LOG_ODDS_SHIFT[k]: mean(_log_odds_change, among=_with_odds_in_bin(k)) for k in bins}


def _bin(full: QuestionSet) -> IntArray:
    return Bins.uniform(BINS).index(full.confidence)


def _in_bin(k: int) -> Callable[[QuestionPairs], FloatArray]:
    return lambda pairs: (_bin(pairs.full) == k).astype(float)


def _with_odds_in_bin(k: int) -> Callable[[QuestionPairs], FloatArray]:
    return lambda pairs: (_bin(pairs.full) == k) * pairs.has_odds


def _probability_change(pairs: QuestionPairs) -> FloatArray:
    return pairs.quantized.true_label_prob - pairs.full.true_label_prob


def _log_odds_change(pairs: QuestionPairs) -> FloatArray:
    return pairs.log_odds_change
