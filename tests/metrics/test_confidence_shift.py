"""The shift of the right answer by the full model's confidence: in probabilities as the study draws it, and in log-odds."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.comparison import compare
from bitsure.metrics.confidence_shift import LOG_ODDS_SHIFT, PROBABILITY_SHIFT
from tests.builders.answers import two_choices
from tests.builders.settings import METRIC


def runs(p, q):
    """Return the records of two models that give the right one of two choices the probabilities p and q."""
    return [[two_choices(x, 0, i) for i, x in enumerate(side)] for side in (p, q)]


def shifted(p, log_odds):
    return 1 / (1 + np.exp(-np.log(p / (1 - p)) - log_odds))


def test_a_uniform_shift_of_log_odds_is_uniform_in_log_odds_and_steep_in_probabilities():
    confidence = np.repeat([0.55, 0.75, 0.95], 40)
    full, quantized = runs(confidence, shifted(confidence, -0.12))
    result = compare(full, quantized, METRIC)["t"]
    for percent in ("50_to_60", "70_to_80", "90_to_100"):
        assert result[f"log_odds_shift_{percent}_percent"].value == pytest.approx(-0.12)
        assert result[f"log_odds_shift_{percent}_percent"].n == 40
    assert result["probability_shift_50_to_60_percent"].value == pytest.approx(-0.030, abs=5e-4)
    assert result["probability_shift_90_to_100_percent"].value == pytest.approx(-0.006, abs=5e-4)


def test_the_bins_are_of_the_full_models_confidence_and_add_up_to_the_whole_shift():
    rng = np.random.default_rng(0)
    p, q = rng.uniform(0.01, 0.99, (2, 200))
    result = compare(*runs(p, q), METRIC)["t"]
    inside = (np.maximum(p, 1 - p) >= 0.8) & (np.maximum(p, 1 - p) < 0.9)  # also where the wrong choice is the likely one
    measured = result["probability_shift_80_to_90_percent"]
    assert measured.value == pytest.approx((q - p)[inside].mean()) and measured.n == inside.sum()
    assert measured.ci_low < measured.value < measured.ci_high
    shifts = [result[name] for name in PROBABILITY_SHIFT if name in result]
    assert sum(shift.n * shift.value for shift in shifts) / 200 == pytest.approx(result["true_label_prob"].value)


def test_bins_without_a_question_are_left_out_and_tasks_are_not_averaged():
    full, quantized = ([two_choices(p, 0, i, task) for task in "ab" for i in range(40)] for p in (0.65, 0.6))
    results = compare(full, quantized, METRIC)
    names = {name for values in results.values() for name in values if name in (*PROBABILITY_SHIFT, *LOG_ODDS_SHIFT)}
    assert names == {"probability_shift_60_to_70_percent", "log_odds_shift_60_to_70_percent"}
    assert not names & set(results["macro_average"])


def test_noise_has_its_range_in_every_bin():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 0.99, 200)
    full, quantized = runs(p, shifted(p, -0.3))
    noisy = [runs(p, shifted(p, shift))[1] for shift in (-0.1, 0.1)]
    result = compare(full, quantized, METRIC, noisy=noisy)["t"]
    noise = result["noise_control/log_odds_shift_90_to_100_percent"]
    assert (noise.ci_low, noise.ci_high, noise.n) == (pytest.approx(-0.1), pytest.approx(0.1), 2)
    assert "noise_control/probability_shift_50_to_60_percent" in result
