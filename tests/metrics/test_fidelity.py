"""Fidelity over tokens and next-token calibration, from arrays."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.api import metric_settings
from bitsure.metrics.estimation import estimate, standard_error
from bitsure.metrics.fidelity import TokenPairs, fidelity_metrics, percentiles
from bitsure.metrics.next_token import ScoredTokens, next_token_metrics


def tokens(rng, n=2000, shift=0.0) -> ScoredTokens:
    confidence = rng.uniform(0.02, 0.999, n)
    return ScoredTokens(
        logprob=np.minimum(np.log(confidence) - rng.exponential(1, n) + shift, -1e-6),
        top_token=rng.integers(0, 3, n),
        confidence=confidence,
        correct=(rng.random(n) < confidence).astype(float),
    )


def pairs(seed=0, n=2000) -> TokenPairs:
    rng = np.random.default_rng(seed)
    return TokenPairs(tokens(rng, n), tokens(rng, n), rng.exponential(0.01, n))


DOCUMENTS = np.repeat(np.arange(40), 50)


def test_every_number_is_what_its_name_says():
    both = pairs()
    change = np.exp(both.quantized.logprob) - np.exp(both.full.logprob)
    values = {name: metric.value(both) for name, metric in fidelity_metrics(both).items()}
    values |= {name: of.value for name, of in percentiles(both, DOCUMENTS).items()}
    kl = both.kl_divergence
    expected = {
        "kl_divergence": kl.mean(),
        "kl_divergence_median": np.median(kl),
        "kl_divergence_p99": np.percentile(kl, 99),
        "kl_divergence_p99_9": np.percentile(kl, 99.9),
        "kl_divergence_p0_1": np.percentile(kl, 0.1),
        "kl_divergence_max": kl.max(),
        "kl_divergence_min": kl.min(),
        "true_token_prob_change": change.mean(),
        "true_token_prob_change_rms": np.sqrt((change**2).mean()),
        "true_token_prob_change_p25": np.percentile(change, 25),
        "same_top_token": (both.full.top_token == both.quantized.top_token).mean(),
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_bins_are_of_the_full_model_s_confidence():
    both = pairs()
    metric = fidelity_metrics(both)["kl_divergence_20_to_30_percent"]
    inside = (both.full.confidence >= 0.2) & (both.full.confidence < 0.3)
    assert metric.value(both) == pytest.approx(both.kl_divergence[inside].mean())
    assert metric.count(both) == inside.sum()


def test_percentiles_have_intervals_by_documents_that_hold_them_and_extremes_none():
    of = percentiles(pairs(), DOCUMENTS)
    for name in ("kl_divergence_median", "kl_divergence_p90", "true_token_prob_change_p10"):
        low, high = of[name].interval(0.95)
        assert low < of[name].value < high
    assert of["kl_divergence_max"].method.startswith("none:")
    assert of["kl_divergence_p99_9"].method == "none: too few tokens beyond it"
    few = percentiles(pairs(), DOCUMENTS // 4)
    assert few["kl_divergence_median"].method == "none: 10 clusters"


def test_woodruff_s_interval_covers_a_median_whose_documents_differ():
    rng = np.random.default_rng(5)
    covered, documents = 0, np.repeat(np.arange(40), 5)
    both = tokens(rng, 200), tokens(rng, 200)
    for _ in range(40):
        values = rng.normal(0, 1, 200) + rng.normal(0, 2, 40).repeat(5)
        low, high = percentiles(TokenPairs(*both, values), documents)["kl_divergence_median"].interval(0.95)
        covered += low <= 0 <= high
    assert covered >= 34  # by tokens, as if they were independent, 26


def test_intervals_are_wider_by_documents_than_by_tokens_where_documents_differ():
    rng = np.random.default_rng(0)
    both = TokenPairs(tokens(rng), tokens(rng), np.exp(rng.normal(0, 1, 40).repeat(50)))
    metric = fidelity_metrics(both)["kl_divergence"]
    by_documents = estimate({"kl": metric}, both, None, DOCUMENTS)["kl"].standard_error
    assert by_documents > 5 * standard_error(metric.value_and_influence(both)[1], None)


def test_next_token_calibration_sees_an_overconfident_model_and_not_a_calibrated_one():
    rng = np.random.default_rng(0)
    calibrated = tokens(rng, 2000)
    sure = ScoredTokens(calibrated.logprob, calibrated.top_token, np.sqrt(calibrated.confidence), calibrated.correct)
    metrics = next_token_metrics(calibrated, metric_settings())
    error = estimate(metrics, calibrated, None, DOCUMENTS)["next_token/debiased_squared_calibration_error"]
    low, high = error.interval(0.95)
    assert low < 0 < high
    rise = estimate(metrics, sure, None, DOCUMENTS, minus=calibrated)
    assert rise["next_token/debiased_squared_calibration_error"].interval(0.95)[0] > 0
    assert rise["next_token/nll"].interval(0.95)[0] > 0
    assert rise["next_token/accuracy"].value == 0


def test_odds_and_losses_stay_finite_where_a_probability_is_one():
    sure = ScoredTokens(np.array([0.0, -800.0]), np.array([1, 1]), np.array([1.0, 1.0]), np.array([1.0, 0.0]))
    assert np.isfinite(sure.log_odds).all()
    assert np.isfinite(sure.top_token_nll).all()
    assert sure.top_token_nll[0] == 0
