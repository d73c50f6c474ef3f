from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.comparison import judge
from bitsure.config.schema import VerdictSettings
from bitsure.results import Difference
from tests.builders.settings import MARGINS, METRIC


def comparison(accuracy, nll, ece, task="t"):
    """Each metric as (value, low, high) of quantized − full."""
    names = ("accuracy", "nll", "expected_calibration_error")
    found = {
        name: Difference(value=value, ci_low=low, ci_high=high, n=100)
        for name, (value, low, high) in zip(names, (accuracy, nll, ece), strict=True)
    }
    probability = Difference(value=0.0, ci_low=-0.01, ci_high=0.01, n=100, smallest_detectable=0.02)
    return {task: found | {"true_label_prob": probability}}


def changed(comparison, **fields):
    return {task: {name: one.model_copy(update=fields) for name, one in values.items()} for task, values in comparison.items()}


FINE = ((0.0, -0.009, 0.005), (0.0, -0.01, 0.019), (0.0, -0.02, 0.009))


@pytest.mark.parametrize(
    ("moved", "expected", "said"),
    [
        ({}, "non-inferior", "the nearest is the rise of the NLL"),
        ({0: (-0.005, -0.011, 0.001)}, "undecided", "the loss of accuracy +0.0050 [-0.0010, +0.0110], margin 0.01"),
        ({0: (-0.05, -0.06, -0.04)}, "inferior", "accuracy +0.0500 [+0.0400, +0.0600]"),
        ({1: (0.03, 0.021, 0.04)}, "inferior", "the rise of the NLL"),
        ({2: (0.01, 0.0, 0.02)}, "undecided", "calibration error"),
        ({2: (0.05, 0.04, 0.06)}, "undecided", "calibration error"),  # its interval covers too little to condemn
        ({0: (-0.05, -0.06, -0.04), 2: (0.01, 0.0, 0.02)}, "inferior", "accuracy"),
        ({0: (0.05, 0.04, 0.06)}, "non-inferior", "non-inferior"),  # better than before is no loss
    ],
)
def test_a_task_by_its_intervals(moved, expected, said):
    values = [moved.get(i, one) for i, one in enumerate(FINE)]
    found = judge(comparison(*values), MARGINS, METRIC)
    assert found.verdict == found.tasks["t"].verdict == expected
    assert said in found.tasks["t"].sentence and found.tasks["t"].smallest_detectable == 0.02


def test_one_bad_task_decides_and_the_macro_average_does_not():
    bad = comparison(FINE[0], (0.5, 0.4, 0.6), FINE[2], task="bad")
    both = comparison(*FINE) | bad | {"macro_average": {}}
    found = judge(both, MARGINS, METRIC)
    assert found.verdict == "inferior" and set(found.tasks) == {"t", "bad"}


def test_few_questions_decide_nothing():
    judged = judge(changed(comparison(*FINE), n=29), MARGINS, METRIC)
    assert judged.verdict == "undecided" and "29 questions are too few" in judged.tasks["t"].sentence


def test_few_clusters_decide_nothing():
    judged = judge(changed(comparison(*FINE), n_clusters=29), MARGINS, METRIC)
    assert judged.verdict == "undecided" and "in 29 clusters are too few" in judged.tasks["t"].sentence


@pytest.mark.parametrize(("low", "warned"), [(-0.01, True), (0.01, False)])
def test_a_baseline_that_guesses_is_warned_of(low, warned):
    one = comparison(*FINE)
    one["t"]["accuracy"] = one["t"]["accuracy"].model_copy(update={"baseline": 0.26})
    one["t"]["baseline_accuracy_above_guessing"] = Difference(value=0.01, ci_low=low, ci_high=0.03, n=100)
    found = judge(one, MARGINS, METRIC).tasks["t"]
    assert found.verdict == "non-inferior" and bool(found.warning) == warned
    assert (
        "not clearly above guessing here (accuracy 0.260, guessing 0.250, difference [-0.010, +0.030])" in found.sentence
    ) == warned


def test_margins_must_be_positive():
    with pytest.raises(UserError, match=r"verdict\.nll_margin=0"):
        VerdictSettings(strict=False, accuracy_margin=0.01, nll_margin=0, calibration_error_margin=0.01)
