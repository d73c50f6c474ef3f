"""What it gains and costs to ask the full model again where the quantized one is least sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitsure.metrics.statistics import Sums, mean

if TYPE_CHECKING:
    from bitsure.metrics.question_pairs import Pairs

SHARES = tuple(k / 10 for k in range(1, 10))  # of the questions, that go to the full model
NAMES = tuple(f"{share:.0%}".replace("%", "_percent") for share in SHARES)
FULL_BITS = 16  # of a weight in full precision
UNKNOWN_COST = 0.25  # of a quantized answer: 4 bits of 16


def deferred(confidence: np.ndarray, fold: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """(n, len(shares)) of bool: which questions go to the full model so that about such a share does, the least sure ones.

    The thresholds on the quantized model's confidence (n,) come from the other folds.
    """
    chosen = np.zeros((len(confidence), len(shares)), dtype=bool)
    for k in range(int(fold.max()) + 1):
        others = fold != k if fold.max() else fold == k
        chosen[fold == k] = confidence[fold == k, None] < np.quantile(confidence[others], shares)
    return chosen


def cost_of_quantized(given: float | None, bits_per_weight: float | None) -> float:
    """What an answer of the quantized model costs, one of the full model costing 1.

    If it is not given, the share of weights' bits that are moved for it: of 16 bits a weight, at most all of them, or a quarter
    if it is not known.
    """
    if given is not None:
        return given
    return min(1.0, bits_per_weight / FULL_BITS) if bits_per_weight else UNKNOWN_COST


def statistics() -> dict[str, Sums]:
    """For each share the accuracy of both models together, and its gain over deferring as many questions at random."""
    found = {}
    for k, name in enumerate(NAMES):
        found[f"deferral_accuracy_{name}"] = mean(lambda p, k=k: p.quantized.correct + p.deferred[:, k] * p.better)
        found[f"deferral_gain_{name}"] = _gain(k)
    return found


def _gain(k: int) -> Sums:
    """The accuracy of deferring the least sure questions, less that of deferring as many at random: a covariance."""

    def features(pairs: Pairs) -> np.ndarray:
        chosen = pairs.deferred[:, k].astype(float)
        return np.stack([chosen * pairs.better, chosen, pairs.better, np.ones(len(pairs))], axis=1)

    def of(sums: np.ndarray) -> np.ndarray:
        both, chosen, better, n = np.moveaxis(sums, -1, 0)
        return both / n - chosen / n * better / n

    return Sums(features, of)


@dataclass(frozen=True)
class DeferralPoint:
    """One point of the deferral curve; the fields are those of `results.Difference`."""

    share: float
    cost: float
    random_accuracy: float


def points(pairs: Pairs, cost_quantized: float) -> dict[str, DeferralPoint]:
    """Of each accuracy of the curve: the share that was deferred, what an answer costs on average, and the accuracy at random.

    All questions are first asked of the quantized model; an answer of the full model costs 1.
    """
    found = {}
    for k, name in enumerate(NAMES):
        share = float(pairs.deferred[:, k].mean())
        by_chance = float(pairs.quantized.correct.mean() + share * pairs.better.mean())
        found[f"deferral_accuracy_{name}"] = DeferralPoint(share, cost_quantized + share, by_chance)
    return found
