"""Tests and intervals of flips: answers that became wrong against answers that became right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.bootstrap import t_quantile
from bitsure.metrics.point_estimate import score_interval
from bitsure.metrics.question_pairs import AnswerPairs
from bitsure.metrics.significance import SignificanceTest

BECAME_WRONG = "of the changed became wrong"  # what the effect size of `mcnemar` is a share of


def mcnemar(pairs: AnswerPairs[Any], clusters: IntArray | None, level: float) -> SignificanceTest:
    """Return the exact test that as many answers became wrong as became right.

    The effect size is the share of the changed answers that became wrong, in [0, 1]: 0.5 is as many each way, and share /
    (1 − share) is the conditional odds ratio. Its interval is that of Clopper & Pearson (1934).

    Args:
        pairs: Both models' answers to n questions.
        clusters: Each question's cluster, shape (n,), from 0; None if every question is alone. With clusters, whole clusters
            change sign: under the hypothesis, a cluster that lost k more answers than it won might as well have won k more.
            The interval's number of changed answers is divided by the design effect (Korn & Graubard 1998).
        level: The confidence level of the interval, in (0, 1).

    Reference: McNemar 1947.
    """
    from scipy.stats import binomtest

    lost, won = int(pairs.lost.sum()), int(pairs.won.sum())
    changed = lost + won
    if clusters is None:
        test, p_value = "McNemar, exact", float(binomtest(lost, changed).pvalue) if changed else 1.0
    else:
        net = np.rint(np.bincount(clusters, pairs.lost - pairs.won)).astype(int)
        test, p_value = "McNemar, exact, signs of clusters", sign_flips(net[net != 0])
    return SignificanceTest(
        test=test,
        statistic=lost,
        p_value=p_value,
        effect=BECAME_WRONG,
        effect_size=lost / changed if changed else None,
        effect_size_ci=_clopper_pearson(lost / changed, _independent_changes(pairs, clusters), level) if changed else None,
    )


def sign_flips(net: IntArray) -> float:
    """Return P(|Σ ±net| ≥ |Σ net|) over all equally likely signs; 1 if there are no numbers.

    Numbers of one size v give v · (2 B − their count) with a binomial B; the distributions of all sizes are convolved.

    Args:
        net: Whole numbers that are not 0, shape (m,).
    """
    from scipy.signal import fftconvolve
    from scipy.stats import binom

    total: FloatArray = np.ones(1)  # P of each sum from −span to span, in steps of 1
    for size, count in zip(*np.unique(np.abs(net), return_counts=True), strict=True):
        single = np.zeros(2 * size * count + 1)
        single[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        is_short = min(len(total), len(single)) < 1000
        total = np.asarray(np.convolve(total, single) if is_short else fftconvolve(total, single), dtype=float)
    span = len(total) // 2
    extreme = np.abs(np.arange(-span, span + 1)) >= abs(int(net.sum()))
    return float(np.clip(total[extreme].sum(), 0.0, 1.0))


def agresti_min(pairs: AnswerPairs[Any], level: float) -> tuple[float, float]:
    """Return the interval of a difference of paired proportions that stays wide where few answers or none flip.

    It is the Wald interval after half a question is added to each of the four outcomes.

    Args:
        pairs: Both models' answers.
        level: The confidence level, in (0, 1).

    Reference: Agresti & Min 2005.
    """
    n, lost, won = len(pairs) + 2, pairs.lost.sum() + 0.5, pairs.won.sum() + 0.5
    middle = (won - lost) / n
    half = t_quantile(math.inf, level) * math.sqrt(won + lost - (won - lost) ** 2 / n) / n
    return float(middle - half), float(middle + half)


def newcombe(pairs: AnswerPairs[Any], level: float) -> tuple[float, float]:
    """Return the interval of a difference of paired proportions, in [−1, 1], which stays wide where few answers or none flip.

    Args:
        pairs: Both models' answers.
        level: The confidence level, in (0, 1).

    Reference: Newcombe 1998, method 10: the score intervals of both, and their correlation.
    """
    n, lost, won = len(pairs), float(pairs.lost.sum()), float(pairs.won.sum())
    before, after = float(pairs.full.correct.mean()), float(pairs.quantized.correct.mean())
    both = n * before - lost
    neither = n - both - lost - won
    covariance = both * neither - lost * won
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    margins = math.prod((both + lost, won + neither, both + won, lost + neither))
    correlation = covariance / math.sqrt(margins) if margins else 0.0
    after_ends, before_ends = (_distances(share, n, level) for share in (after, before))

    def half(after: float, before: float) -> float:
        return math.sqrt(max(after**2 - 2 * correlation * after * before + before**2, 0.0))

    lower, upper = half(after_ends[0], before_ends[1]), half(after_ends[1], before_ends[0])
    return after - before - lower, after - before + upper


def _distances(share: float, n: int, level: float) -> tuple[float, float]:
    """Return how far the ends of Wilson's interval lie below and above a share of n."""
    low, high = score_interval(share, math.sqrt(share * (1 - share) / n), n, math.inf, level)
    return share - low, high - share


def _independent_changes(pairs: AnswerPairs[Any], clusters: IntArray | None) -> float:
    """Return how many independent changed answers those of these clusters are worth: at most their own number."""
    changed = pairs.lost + pairs.won
    m, share = changed.sum(), pairs.lost.sum() / changed.sum()
    if clusters is None:
        return float(m)
    if share in (0.0, 1.0):  # nothing varies: as many as there are clusters of them
        return float(len(np.unique(clusters[changed > 0])))
    variance = (np.bincount(clusters, pairs.lost - share * changed) ** 2).sum() / m**2
    return float(min(m, share * (1 - share) / variance)) if variance > 0 else float(m)


def _clopper_pearson(share: float, n: float, level: float) -> tuple[float, float]:
    """Return the exact interval of a share of n trials, which need be no whole number."""
    from scipy.stats import beta

    hits, tail = share * n, (1 - level) / 2
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high
