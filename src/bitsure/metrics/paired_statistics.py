"""What is told of two models that were asked the same questions: flips, divergences, harm, repair, deferral."""

from __future__ import annotations

import numpy as np

from bitsure.metrics import deferral
from bitsure.metrics.question_pairs import STRATA, Pairs
from bitsure.metrics.statistics import Sums, mean


def paired_statistics() -> dict[str, Sums]:
    """What needs both models' answers to a question. Harm is mean δ, instability the standard deviation of δ, by stratum."""
    found = {
        "flip_rate": mean(lambda p: p.flipped),
        "correct_to_wrong": mean(lambda p: p.lost),
        "wrong_to_correct": mean(lambda p: p.won),
        "kl_divergence": mean(lambda p: p.kl_divergence),
        "jensen_shannon_divergence": mean(lambda p: p.jensen_shannon),
        "jensen_shannon_distance": mean(lambda p: np.sqrt(p.jensen_shannon)),
        "harm": mean(lambda p: p.log_odds_change, among=lambda p: p.has_odds),
        "instability": _deviation(lambda p: p.has_odds),
        "harm_slope": _slope(),
        "nll_mended_by_temperature": mean(
            lambda p: p.quantized.nll - p.quantized_at_own_temperature.nll - p.full.nll + p.full_at_own_temperature.nll
        ),
        "nll_beyond_temperature": mean(lambda p: p.quantized_at_own_temperature.nll - p.full_at_own_temperature.nll),
        "nll_saved_by_own_temperature": mean(lambda p: p.quantized.nll - p.quantized_at_own_temperature.nll),
        "nll_saved_by_full_temperature": mean(lambda p: p.quantized.nll - p.quantized_at_full_temperature.nll),
    }
    for k in range(STRATA):
        inside = lambda p, k=k: (p.stratum == k) * p.has_odds  # noqa: E731
        found[f"harm_stratum_{k + 1}"] = mean(lambda p: p.log_odds_change, among=inside)
        found[f"instability_stratum_{k + 1}"] = _deviation(inside)
    return found | deferral.statistics()


def _deviation(among) -> Sums:
    """The standard deviation of δ where `among` is 1."""

    def features(pairs: Pairs) -> np.ndarray:
        inside, change = among(pairs), pairs.log_odds_change
        return np.stack([inside, inside * change, inside * change**2], axis=1)

    def of(sums: np.ndarray) -> np.ndarray:
        n = sums[..., 0]
        return np.sqrt(np.maximum(sums[..., 2] / n - (sums[..., 1] / n) ** 2, 0.0))

    return Sums(features, of, least=0.0, among=among)


def _slope() -> Sums:
    """Least-squares slope of δ on the full model's certainty (0 … 1): above 0 where unsure questions are hit harder.

    Its null value is not 0 but the slope of noise of the same size: it has a test where there is a noise control.
    """

    def features(pairs: Pairs) -> np.ndarray:
        x, y = pairs.certainty, pairs.log_odds_change
        return np.stack([np.ones(len(pairs)), x, y, x * y, x * x], axis=1) * pairs.has_odds[:, None]

    def of(sums: np.ndarray) -> np.ndarray:
        n, x, y, xy, xx = np.moveaxis(sums, -1, 0)
        spread = n * xx - x * x
        return np.where(spread > 1e-9 * n * n, (n * xy - x * y) / spread, np.nan)

    return Sums(features, of)
