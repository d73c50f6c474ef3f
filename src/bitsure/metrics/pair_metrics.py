"""Metrics of two models' answers to the same questions: flips, divergences, harm, repair by temperature, deferral."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.deferral_curve import deferral_metrics
from bitsure.metrics.odds_change import odds_deviation, odds_slope
from bitsure.metrics.question_pairs import STRATA, AnswerPairs, QuestionPairs
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.statistic import SumStatistic, mean, proportion
from bitsure.metrics.text_metrics import TextSet


def pair_metrics() -> dict[str, SumStatistic[QuestionPairs]]:
    """Return the metrics that need both models' answers to questions with choices.

    Harm is the mean and instability the standard deviation of δ, the change of the right answer's log-odds, overall and by
    stratum of the full model's certainty.
    """
    metrics: dict[str, SumStatistic[QuestionPairs]] = {
        **flip_metrics(),
        "kl_divergence": _divergence(lambda p: p.kl_divergence),
        "jensen_shannon_divergence": _divergence(lambda p: p.jensen_shannon),
        "jensen_shannon_distance": mean(lambda p: np.sqrt(p.jensen_shannon), least=0.0, most=1.0),
        "harm": mean(lambda p: p.log_odds_change, among=lambda p: p.has_odds),
        "instability": odds_deviation(lambda p: p.has_odds),
        "harm_slope": odds_slope(),
        "nll_mended_by_temperature": mean(
            lambda p: p.quantized.nll - p.quantized_at_own_temperature.nll - p.full.nll + p.full_at_own_temperature.nll
        ),
        "nll_beyond_temperature": mean(lambda p: p.quantized_at_own_temperature.nll - p.full_at_own_temperature.nll),
        "nll_saved_by_own_temperature": _saved(lambda p: p.quantized_at_own_temperature),
        "nll_saved_by_full_temperature": _saved(lambda p: p.quantized_at_full_temperature),
    }
    for k in range(STRATA):
        inside = _in_stratum(k)
        metrics[f"harm_stratum_{k + 1}"] = mean(lambda p: p.log_odds_change, among=inside)
        metrics[f"instability_stratum_{k + 1}"] = odds_deviation(inside)
    return metrics | deferral_metrics()


def flip_metrics() -> dict[str, SumStatistic[QuestionPairs]]:
    """Return the metrics of which answers changed, and became wrong or right, in [0, 1]."""
    return {
        "flip_rate": proportion(lambda p: p.flipped),
        "correct_to_wrong": proportion(lambda p: p.lost),
        "wrong_to_correct": proportion(lambda p: p.won),
    }


def text_pair_metrics() -> dict[str, SumStatistic[AnswerPairs[TextSet]]]:
    """Return the metrics of two models' continuations: what became wrong or right by greedy decoding, in [0, 1]."""
    return {
        "flip_rate": proportion(lambda p: p.lost + p.won),
        "correct_to_wrong": proportion(lambda p: p.lost),
        "wrong_to_correct": proportion(lambda p: p.won),
    }


def _divergence(values: Callable[[QuestionPairs], FloatArray]) -> SumStatistic[QuestionPairs]:
    """Return the mean of a divergence of each question, which a few questions often dominate."""
    return replace(mean(values, least=0.0), interval="positive")


def _saved(at_temperature: Callable[[QuestionPairs], QuestionSet]) -> SumStatistic[QuestionPairs]:
    """Return the NLL that a fitted temperature saves, without an interval: that would leave out that it is fitted."""
    return replace(mean(lambda p: p.quantized.nll - at_temperature(p).nll), interval="no single")


def _in_stratum(k: int) -> Callable[[QuestionPairs], FloatArray]:
    return lambda pairs: (pairs.stratum == k) * pairs.has_odds
