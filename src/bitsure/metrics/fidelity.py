"""How far a quantized model's next-token probabilities are from the full model's, as llama-perplexity reports it, and more.

Numbers over tokens have intervals by documents (or windows): tokens within one are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.bins import Bins
from bitsure.metrics.estimation import FEWEST, few_units, standard_error
from bitsure.metrics.next_token import ScoredTokens, scored_tokens
from bitsure.metrics.odds_change import odds_deviation, odds_slope
from bitsure.metrics.point_estimate import NO_INTERVAL, PointEstimate
from bitsure.metrics.statistic import SumStatistic, mean, proportion
from bitsure.metrics.ties import with_ties
from bitsure.records.text_units import compared_with_each_other, token_column

CONFIDENCE_BINS = 10  # of the full model's confidence, of equal width
PROBABILITY_CHANGE = "true_token_prob_change"
# llama-perplexity's percentiles, as the end of a metric's name → the share of tokens below
EXTREMES = {"min": 0.0, "max": 1.0}
KL_PERCENTILES = {"p0_1": 0.001, "p1": 0.01, "p5": 0.05, "p10": 0.1, "median": 0.5}
KL_PERCENTILES |= {"p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
CHANGE_PERCENTILES = KL_PERCENTILES | {"p25": 0.25, "p75": 0.75}
WOODRUFF_POINTS = 1000
TOKEN_ERRORS = ("kl_divergence", PROBABILITY_CHANGE, f"{PROBABILITY_CHANGE}_rms", "same_top_token")  # llama-perplexity's ±


@dataclass(frozen=True)
class TokenPairs:
    """The same n tokens of a text as two models scored them; arrays have shape (n,).

    Attributes:
        full: The full model's scores.
        quantized: The quantized model's.
        kl_divergence: KL(full ‖ quantized) over the whole vocabulary, nats.
    """

    full: ScoredTokens
    quantized: ScoredTokens
    kl_divergence: FloatArray

    def __len__(self) -> int:
        return len(self.full)

    @cached_property
    def prob_change(self) -> FloatArray:
        """Δp: the quantized model's probability of the true token less the full model's, in [−1, 1]."""
        return self.quantized.true_token_prob - self.full.true_token_prob

    @cached_property
    def log_odds_change(self) -> FloatArray:
        """δ: the rise of the true token's log-odds, nats, free of the softmax's slope."""
        return self.quantized.log_odds - self.full.log_odds

    @cached_property
    def has_odds(self) -> FloatArray:
        """1 everywhere: no token is the only one."""
        return np.ones(len(self))

    @cached_property
    def same_top(self) -> FloatArray:
        """1.0 where both models hold the same token most likely, else 0.0."""
        return np.asarray(self.full.top_token == self.quantized.top_token, dtype=float)

    @cached_property
    def certainty(self) -> FloatArray:
        """The rank of the full model's confidence within the text, from 0 (unsure) to 1; equal ones have their mean rank."""
        from scipy.stats import rankdata

        ranks: FloatArray = rankdata(with_ties(self.full.confidence))
        return (ranks - 0.5) / len(self)

    @cached_property
    def confidence_bin(self) -> IntArray:
        """The bin of the full model's confidence, 0 … CONFIDENCE_BINS − 1."""
        return Bins.uniform(CONFIDENCE_BINS).index(self.full.confidence)


def token_pairs(baseline: pa.Table, quantized: pa.Table) -> TokenPairs | None:
    """Return the tokens of one text's records in pairs; None if their divergences are from another model than the baseline.

    Args:
        baseline: The full model's records under `bitsure.records.text_units.UNITS_SCHEMA`.
        quantized: The quantized model's, of the same documents or windows in the same order.
    """
    if not compared_with_each_other(baseline, quantized):
        return None
    return TokenPairs(scored_tokens(baseline), scored_tokens(quantized), token_column(quantized, "kl_divergences"))


def fidelity_metrics(pairs: TokenPairs) -> dict[str, SumStatistic[TokenPairs]]:
    """Return the metrics of fidelity that are functions of sums over tokens.

    Among them are KL and Δp by the full model's confidence; bins of confidence that hold no token have none. `harm_slope` is
    the slope of δ on the full model's certainty: whether unsure tokens fare worse, which the noise control is the null of.
    """
    metrics: dict[str, SumStatistic[TokenPairs]] = {
        "kl_divergence": replace(mean(lambda p: p.kl_divergence, least=0.0), interval="positive"),
        PROBABILITY_CHANGE: mean(lambda p: p.prob_change, least=-1.0, most=1.0),
        f"{PROBABILITY_CHANGE}_rms": _root_mean_square(lambda p: p.prob_change),
        "same_top_token": proportion(lambda p: p.same_top),
        "harm": mean(lambda p: p.log_odds_change),
        "instability": odds_deviation(lambda p: p.has_odds),
        "harm_slope": odds_slope(),
    }
    for k in np.unique(pairs.confidence_bin).tolist():
        inside, name = _in_bin(k), f"{10 * k}_to_{10 * (k + 1)}_percent"
        metrics[f"kl_divergence_{name}"] = mean(lambda p: p.kl_divergence, among=inside, least=0.0)
        metrics[f"{PROBABILITY_CHANGE}_{name}"] = mean(lambda p: p.prob_change, among=inside, least=-1.0, most=1.0)
    return metrics


def percentiles(pairs: TokenPairs, clusters: IntArray) -> dict[str, PointEstimate]:
    """Return the percentiles of KL and Δp over tokens, interpolated as llama-perplexity does.

    Their intervals are Woodruff's: the share of tokens below a percentile has a standard error by documents, and the
    percentiles at the ends of its interval are the interval. Extremes, and percentiles with an end beyond them, have none.

    Args:
        pairs: The tokens.
        clusters: Each token's document or window, shape (n,), from 0.

    Reference: Woodruff 1952.
    """
    kl = _percentiles("kl_divergence", pairs.kl_divergence, KL_PERCENTILES, clusters)
    return kl | _percentiles(PROBABILITY_CHANGE, pairs.prob_change, CHANGE_PERCENTILES, clusters)


def _percentiles(name: str, values: FloatArray, shares: Mapping[str, float], clusters: IntArray) -> dict[str, PointEstimate]:
    ordered, units = np.sort(values), int(clusters.max()) + 1
    estimates = {}
    for ending, share in {**shares, **EXTREMES}.items():
        value, replicates, method = float(np.quantile(ordered, share)), None, f"{NO_INTERVAL}an extreme of the tokens"
        if ending not in EXTREMES:
            replicates, method = _woodruff(ordered, np.asarray(values <= value, dtype=float), share, clusters)
        if replicates is None:
            estimate = PointEstimate(value, math.nan, None, method, "none", units=units)
        else:
            estimate = PointEstimate(value, float(replicates.std()), replicates, method, "percentile", units=units)
        estimates[f"{name}_{ending}"] = estimate
    return estimates


def _woodruff(ordered: FloatArray, below: FloatArray, share: float, clusters: IntArray) -> tuple[FloatArray | None, str]:
    """Return percentiles at shares that are distributed as the estimate of `share` is, and the method's name."""
    from scipy.stats import t

    units = int(clusters.max()) + 1
    if units < FEWEST:
        return None, few_units(units, clusters)
    error = standard_error(below - below.mean(), clusters)
    drawn = share + error * t.ppf((np.arange(WOODRUFF_POINTS) + 0.5) / WOODRUFF_POINTS, units - 1)
    if np.quantile(drawn, 0.01) < 0 or np.quantile(drawn, 0.99) > 1:
        return None, f"{NO_INTERVAL}too few tokens beyond it"
    return np.quantile(ordered, np.clip(drawn, 0, 1)), "Woodruff"


def _root_mean_square(values: Callable[[TokenPairs], FloatArray]) -> SumStatistic[TokenPairs]:
    of_squares = mean(lambda p: values(p) ** 2)

    def root(sums: FloatArray) -> FloatArray:
        rms: FloatArray = np.sqrt(np.maximum(of_squares.function(sums), 0.0))
        return rms

    return SumStatistic(of_squares.features, root, "positive", least=0.0)


def _in_bin(k: int) -> Callable[[Any], FloatArray]:
    return lambda pairs: np.asarray(pairs.confidence_bin == k, dtype=float)
