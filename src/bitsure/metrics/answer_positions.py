"""How far a quantized model is from full precision along the answers that full precision wrote, by the token's place."""

from __future__ import annotations

import numpy as np

from bitsure.metrics.arrays import IntArray
from bitsure.metrics.fidelity import PROBABILITY_CHANGE, TokenPairs
from bitsure.metrics.statistic import SumStatistic, always, mean

FIRST_TOKENS = tuple(2**k for k in range(13))  # of each range of places, from 1; the last has no end
KL_FROM, CHANGE_FROM = (
    tuple(f"{name}_from_token_{first}" for first in FIRST_TOKENS) for name in ("kl_divergence", PROBABILITY_CHANGE)
)


def position_metrics(positions: IntArray) -> dict[str, SumStatistic[TokenPairs]]:
    """Return mean KL and mean Δp of the true token in each range of places that holds one, each twice as long as the last.

    Args:
        positions: Each token's place in its answer, from 0, shape (n,).
    """
    place = np.minimum(np.log2(positions + 1).astype(int), len(FIRST_TOKENS) - 1)
    metrics: dict[str, SumStatistic[TokenPairs]] = {}
    for k in np.unique(place).tolist():
        inside = always(place == k)
        metrics[KL_FROM[k]] = mean(lambda p: p.kl_divergence, among=inside, least=0.0)
        metrics[CHANGE_FROM[k]] = mean(lambda p: p.prob_change, among=inside, least=-1.0, most=1.0)
    return metrics
