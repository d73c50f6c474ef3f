"""What a verdict's losses are in the unit of their metric."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bitsure.comparison.losses import Loss, mean_losses
from bitsure.metrics.bins import Bins
from bitsure.metrics.calibration import debiased_squared_error
from tests.builders.answers import drawn_questions


def calibration(before: float, after: float) -> Loss:
    return Loss(after - before, 0.001, 0.001, margin=0.01, n=100, units=100, squares=(before, after))


@pytest.mark.parametrize(
    ("before", "after", "rise", "limit"),
    [
        (0.05**2, 0.06**2, 0.01, 0.06**2 - 0.05**2),
        (0.06**2, 0.05**2, -0.01, 0.06**2 - 0.05**2),
        (0.0, 0.01**2, 0.01, 0.01**2),
        (-0.0002, 0.0001, math.sqrt(0.0003), 0.01**2),  # an estimate of the squared error may be negative
        (-0.0003, -0.0004, -0.01, 0.01**2),
        (-0.0003, -0.0003, 0.0, 0.01**2),
    ],
)
def test_a_rise_of_the_squared_error_is_one_of_the_error(before, after, rise, limit):
    loss = calibration(before, after)
    assert (loss.in_unit(loss.value), loss.limit) == pytest.approx((rise, limit))
    assert (loss.value < loss.limit) == (loss.in_unit(loss.value) < loss.margin) or rise == pytest.approx(loss.margin)


def test_over_tasks_the_squared_errors_are_averaged_before_the_root():
    mean = mean_losses([{"calibration_error": calibration(0.0, 0.0)}, {"calibration_error": calibration(0.005, 0.0072)}])
    loss = mean["calibration_error"]
    assert loss.in_unit(loss.value) == pytest.approx(0.06 - 0.05)
    assert (loss.above, loss.n, loss.units) == pytest.approx((0.001 / math.sqrt(2), 200, 100))


def test_an_interval_of_calibration_counts_that_the_errors_before_and_after_are_estimated():
    """A limit of .01 · (.05 + .06) = .0011; 1.96 standard errors of .000196 take the first square down to .002116."""
    known = calibration(0.05**2, 0.06**2)
    error = 0.000196
    loss = replace(known, square_errors=(error, math.hypot(error, 0.001)))  # loss and first square are independent
    moved = 0.01 * (0.11 - math.sqrt(0.0025 - 1.96 * error) - math.sqrt(0.0036 - 1.96 * error)) / 1.96
    assert loss.error_above == pytest.approx(math.hypot(0.001, moved)) and loss.error_above > known.error_above == 0.001
    opposed = replace(loss, square_errors=(error, 0.001 - error))  # of correlation −1: what is more before is less after
    assert opposed.error_above == pytest.approx(0.001 + moved)
    assert opposed.interval(0.95)[1] > loss.interval(0.95)[1] > known.interval(0.95)[1]


def test_the_first_error_is_not_taken_for_known():
    """By chance the first error seems to be .02 instead of 0, which alone makes a rise of .0005 look small."""
    seen = replace(calibration(0.0004, 0.0009), below=0.0002, above=0.0002, margin=0.02)
    assert seen.interval(0.95)[1] < seen.limit
    counted = replace(seen, square_errors=(0.0004, 0.0004))
    assert counted.interval(0.95)[1] > counted.limit


def test_the_variance_near_calibration_is_by_chance():
    error = debiased_squared_error(Bins.uniform(15))
    (_, calibrated), (_, wrong) = (error.sampling_error(drawn_questions(power=power), None) for power in (1.0, 6.0))
    assert 0.3 < calibrated <= 1 and wrong < calibrated / 10
