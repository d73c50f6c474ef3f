from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsure.metrics.calibration import bin_index, error_if_calibrated, expected_calibration_error, reliability_diagram


def ece(confidence, correct, n_bins=15):
    confidence, correct = np.array(confidence, float), np.array(correct, float)
    return expected_calibration_error(confidence, correct, np.ones((1, len(confidence))), n_bins)[0]


def test_one_falls_into_the_last_bin():
    assert bin_index(np.array([0, 0.0667, 0.5, 0.9999, 1.0]), 15).tolist() == [0, 1, 7, 14, 14]


def test_golden_value_by_hand():
    # two bins of ten: [0.5, 0.6) with confidences .5, .58 and one right, [0.9, 1] with .9, 1 and both right
    assert ece([0.5, 0.58, 0.9, 1.0], [1, 0, 1, 1], n_bins=10) == pytest.approx((abs(1 - 1.08) + abs(2 - 1.9)) / 4)


def test_always_wrong_at_full_confidence_is_one_and_always_right_is_zero():
    assert ece([1, 1, 1], [0, 0, 0]) == 1 and ece([1, 1], [1, 1]) == 0


def test_weights_count_a_question_as_often_as_they_say():
    confidence, correct = np.array([0.55, 0.85, 0.95]), np.array([1.0, 0.0, 1.0])
    weighted = expected_calibration_error(confidence, correct, np.array([[2.0, 0.0, 1.0]]), 15)[0]
    assert weighted == pytest.approx(ece([0.55, 0.55, 0.95], [1, 1, 1]))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 30))
def test_the_diagram_adds_up_to_the_error(pairs, n_bins):
    confidence, correct = np.array([c for c, _ in pairs]), np.array([float(y) for _, y in pairs])
    bins = reliability_diagram(confidence, correct, n_bins)
    some = bins.count > 0
    total = (bins.count[some] * np.abs(bins.accuracy[some] - bins.confidence[some])).sum() / len(pairs)
    assert bins.count.sum() == len(pairs)
    assert total == pytest.approx(ece(confidence, correct, n_bins)) and 0 <= total <= 1


def test_agrees_with_torchmetrics_like_definition_inside_bins():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.25, 0.999, 3000)
    correct = (rng.random(3000) < confidence**2).astype(float)
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        chosen = (confidence >= low) & (confidence < high)
        if chosen.any():
            expected += chosen.mean() * abs(correct[chosen].mean() - confidence[chosen].mean())
    assert ece(confidence, correct) == pytest.approx(expected)


def test_error_if_calibrated_is_what_calibrated_data_give():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.25, 1, 500)
    measured = np.mean([ece(confidence, rng.random(500) < confidence) for _ in range(200)])
    assert error_if_calibrated(confidence, 15, 200, 0) == pytest.approx(measured, rel=0.05)
