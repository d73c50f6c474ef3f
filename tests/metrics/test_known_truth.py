from __future__ import annotations

import numpy as np
import pytest

from bitsure.metrics.bins import Bins
from bitsure.metrics.known_truth import estimator_performance
from bitsure.metrics.questions import QuestionSet


def known(n=600, temperature=1.0, seed=0):
    """A model that says the truth, at a temperature, of questions with four choices."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, 4))
    truth = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    gold = np.zeros(4 * n, dtype=bool)
    gold[::4] = True
    return QuestionSet((z / temperature).ravel(), gold, np.arange(n + 1) * 4), truth


def test_a_model_that_says_the_truth_has_no_true_error_and_the_plug_in_sees_one():
    found = estimator_performance(*known(), Bins.uniform(15), 100, 0)
    assert found["expected_calibration_error"].true == pytest.approx(0, abs=1e-9)
    assert found["expected_calibration_error"].bias > 0.02
    debiased = found["debiased_squared_calibration_error"]
    assert (
        debiased.true == pytest.approx(0, abs=1e-9)
        and abs(debiased.bias) < 0.1 * found["squared_calibration_error"].bias + 2e-4
    )


def test_an_injected_temperature_is_an_error_that_all_find():
    asked, truth = known(temperature=0.4)
    found = estimator_performance(asked, truth, Bins.uniform(15), 60, 0)
    sure = asked.confidence.mean() - truth[np.arange(len(asked)), asked.prediction].mean()
    assert found["expected_calibration_error"].true == pytest.approx(sure, abs=0.01) and sure > 0.1
    for one in found.values():
        assert one.mean == pytest.approx(one.true, rel=0.25) and one.rmse >= abs(one.bias)
