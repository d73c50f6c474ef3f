from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsure.metrics import calibration
from bitsure.metrics.bins import Bins, reliability_diagram
from bitsure.metrics.calibration import errors_if_calibrated, expected_calibration_error
from bitsure.metrics.smooth_calibration import GRID, smooth_calibration_error
from tests.builders.answers import binary_questions, drawn_questions, statistic_value
from tests.builders.marks import library

TEN = Bins.uniform(10)


FOUR = binary_questions([0.55, 0.58, 0.95, 1.0], [1, 0, 1, 1])  # bins [.5, .6): c̄ .565, ȳ ½; [.9, 1]: c̄ .975, ȳ 1


def test_golden_values_by_hand():
    low, high = 0.565 - 0.5, 1 - 0.975
    assert statistic_value(expected_calibration_error(TEN), FOUR) == pytest.approx((low + high) / 2)
    assert statistic_value(calibration.rms_calibration_error(TEN), FOUR) == pytest.approx(np.sqrt((low**2 + high**2) / 2))
    assert statistic_value(calibration.maximum_calibration_error(TEN), FOUR) == pytest.approx(low)
    # ȳ (1 − ȳ) / (n − 1) is ¼ in the lower bin and 0 in the upper one
    assert statistic_value(calibration.debiased_squared_error(TEN), FOUR) == pytest.approx((low**2 - 0.25 + high**2) / 2)
    parts = {name: statistic_value(one, FOUR) for name, one in calibration.brier_parts(TEN).items()}
    assert parts["brier_reliability"] == pytest.approx((low**2 + high**2) / 2)
    assert parts["brier_resolution"] == pytest.approx(0.25**2)
    assert parts["brier_uncertainty"] == pytest.approx(0.75 * 0.25)


def test_classwise_error_by_hand():
    # both bins' gaps of p(first choice): .55 → 1, .58 → 0, .95 → 1, 1 → 1; the second choice's are the same mirrored
    first = abs(1 - 0.55 + 0 - 0.58) + abs(1 - 0.95 + 1 - 1)
    second = abs(0 - 0.45 + 1 - 0.42) + abs(0 - 0.05 + 0 - 0)
    assert statistic_value(calibration.classwise_calibration_error(TEN), FOUR) == pytest.approx((first + second) / 4 / 2)


@pytest.mark.parametrize("confidence, expected", [(0, 0), (0.0667, 1), (0.5, 7), (0.9999, 14), (1.0, 14)])
def test_one_falls_into_the_last_bin(confidence, expected):
    assert Bins.uniform(15).index(np.array([confidence])).tolist() == [expected]


def test_quantile_bins_hold_equally_many_and_equal_values_stay_together():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 1000)
    counts = np.bincount(Bins.quantile(confidence, 10).index(confidence))
    assert len(counts) == 10 and counts.min() >= 99 and counts.max() <= 101
    assert len(Bins.quantile(np.full(50, 0.7), 10)) <= 2


def test_always_wrong_at_full_confidence_is_one_and_always_right_is_zero():
    sure_and_wrong, sure_and_right = binary_questions([1, 1, 1], [0, 0, 0]), binary_questions([1, 1], [1, 1])
    for one in (
        expected_calibration_error(TEN),
        smooth_calibration_error(),
        calibration.maximum_calibration_error(TEN),
        calibration.rms_calibration_error(TEN),
    ):
        assert statistic_value(one, sure_and_right) == pytest.approx(0, abs=1e-9)
        assert statistic_value(one, sure_and_wrong) == pytest.approx(1)
        found, influence = one.value_and_influence(sure_and_wrong)  # by sums that are changed a little: to more than 1
        assert found == pytest.approx(1) and np.isfinite(influence).all()


def test_the_smooth_error_of_many_rows_is_that_of_each_alone():
    """Whatever row the search begins with: rows that cross at small and large scales, of no gap, of no questions, and of only
    sure and wrong answers.
    """
    smooth, rng = smooth_calibration_error(), np.random.default_rng(0)
    sums = np.zeros((8, GRID + 1))
    for row, gap in zip(sums, (0.001, 0.01, 0.05, 0.2, 0.7, 1.0, 0.0, 0.0), strict=True):
        row[rng.integers(200, 400, 50)] = -gap
        row[-1] = (row != 0).sum() or 50
    sums[5], sums[7, -1] = 0, 0
    sums[5, [-2, -1]] = -3.000003, 3
    alone = [smooth.from_sums(row[None])[0] for row in sums]
    assert alone[5] == pytest.approx(1) and alone[6] == 0 and np.isnan(alone[7]) and np.isfinite(alone[:7]).all()
    for first in range(8):
        order = np.roll(np.arange(8), first)
        np.testing.assert_array_equal(smooth.from_sums(sums[order]), np.array(alone)[order])


def test_weights_count_a_question_as_often_as_they_say():
    questions, repeated = binary_questions([0.55, 0.85, 0.95], [1, 0, 1]), binary_questions([0.55, 0.55, 0.95], [1, 1, 1])
    statistics = [
        expected_calibration_error(TEN),
        calibration.debiased_squared_error(TEN),
        calibration.rms_calibration_error(TEN),
        smooth_calibration_error(),
        calibration.classwise_calibration_error(TEN),
        *calibration.brier_parts(TEN).values(),
    ]
    for one in statistics:
        assert statistic_value(one, questions, [[2, 0, 1]]) == pytest.approx(statistic_value(one, repeated))


@given(st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 30))
def test_the_diagram_adds_up_to_the_error(pairs, n_bins):
    questions = binary_questions(*zip(*pairs, strict=True))
    bins = Bins.uniform(n_bins)
    diagram = reliability_diagram(questions.confidence, questions.correct, bins)
    some = diagram.count > 0
    total = (diagram.count[some] * np.abs(diagram.accuracy[some] - diagram.confidence[some])).sum() / len(pairs)
    assert diagram.count.sum() == len(pairs)
    assert total == pytest.approx(statistic_value(expected_calibration_error(bins), questions)) and 0 <= total <= 1


@given(st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), min_size=2, max_size=50))
def test_the_parts_of_the_brier_score_are_that_of_the_binned_forecast(pairs):
    questions, bins = binary_questions(*zip(*pairs, strict=True)), Bins.uniform(7)
    diagram = reliability_diagram(questions.confidence, questions.correct, bins)
    forecast = diagram.confidence[bins.index(questions.confidence)]
    parts = [statistic_value(one, questions) for one in calibration.brier_parts(bins).values()]
    assert parts[0] - parts[1] + parts[2] == pytest.approx(((forecast - questions.correct) ** 2).mean(), abs=1e-9)


def test_agrees_with_the_definition_inside_bins():
    questions = drawn_questions(power=2)
    expected = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, 16)):
        chosen = (questions.confidence >= low) & (questions.confidence < high)
        if chosen.any():
            expected += chosen.mean() * abs(questions.correct[chosen].mean() - questions.confidence[chosen].mean())
    assert statistic_value(expected_calibration_error(Bins.uniform(15)), questions) == pytest.approx(expected)


@pytest.mark.parametrize(
    "norm, build", [("l1", "expected_calibration_error"), ("l2", "rms_calibration_error"), ("max", "maximum_calibration_error")]
)
def test_agrees_with_torchmetrics(norm, build):
    torch = library("torch")
    functional = library("torchmetrics.functional.classification")
    questions = drawn_questions(power=1.7)
    p = torch.tensor(np.stack([1 - questions.confidence, questions.confidence], axis=1))
    expected = functional.multiclass_calibration_error(p, torch.tensor(questions.correct).long(), 2, n_bins=15, norm=norm)
    assert statistic_value(getattr(calibration, build)(Bins.uniform(15)), questions) == pytest.approx(float(expected), abs=1e-6)


def test_the_debiased_error_is_unbiased_where_the_plug_in_is_not():
    debiased, plug_in = calibration.debiased_squared_error(TEN), calibration.rms_calibration_error(TEN)
    samples = [drawn_questions(300, seed=seed) for seed in range(300)]
    errors = np.array([statistic_value(debiased, questions) for questions in samples])
    assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(len(errors)) + 2e-5
    assert np.mean([statistic_value(plug_in, questions) ** 2 for questions in samples]) > 0.002


def test_the_smooth_error_is_small_when_calibrated_and_near_a_constant_gap():
    smooth = smooth_calibration_error()
    assert statistic_value(smooth, drawn_questions(20_000)) < 0.015
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.6, 0.9, 50_000)
    gap = binary_questions(confidence, rng.random(50_000) < confidence - 0.1)
    assert statistic_value(smooth, gap) == pytest.approx(0.1, abs=0.01)


def test_the_smooth_error_agrees_with_relplot():
    relplot = library("relplot")
    for questions in (drawn_questions(2000), drawn_questions(2000, power=2), drawn_questions(500, power=0.5)):
        expected = relplot.smECE(questions.confidence, questions.correct)
        assert statistic_value(smooth_calibration_error(), questions) == pytest.approx(expected, abs=0.005)


def test_error_if_calibrated_is_what_calibrated_data_give():
    rng, bins = np.random.default_rng(1), Bins.uniform(15)
    confidence = rng.uniform(0.5, 1, 500)
    errors = [
        statistic_value(expected_calibration_error(bins), binary_questions(confidence, rng.random(500) < confidence))
        for _ in range(200)
    ]
    found = errors_if_calibrated(confidence, bins, 200, 0)
    assert found.shape == (200,) and found.mean() == pytest.approx(np.mean(errors), rel=0.05)
    assert np.quantile(found, 0.95) == pytest.approx(np.quantile(errors, 0.95), rel=0.1)
