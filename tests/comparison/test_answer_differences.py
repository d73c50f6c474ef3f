"""Two models' written answers: what is compared, and what a verdict makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitsure.comparison import compare, judge
from bitsure.metrics.metric_registry import METRICS
from bitsure.records.answer_units import answer_units
from tests.builders.settings import MARGINS, METRIC
from tests.builders.written import written

SETTINGS = replace(METRIC, resamples=100)
RNG = np.random.default_rng(1)
N = 80


def side(share: float, scale: float, right: str = "fox"):
    correct = np.random.default_rng(2).random(N) < share
    logprobs = [(-RNG.exponential(scale, 4)).tolist() for _ in range(N)]
    return answer_units(written([right if c else f"wrong {i}" for i, c in enumerate(correct)], correct.tolist(), logprobs))


BEFORE, AFTER = side(0.8, 0.2), side(0.4, 0.5)


@pytest.fixture(scope="module")
def values():
    return compare(BEFORE, AFTER, SETTINGS, 4.0)["free"]


def test_answers_are_paired_question_by_question(values):
    was, now = (np.array(records["correct"].to_pylist()) for records in (BEFORE, AFTER))
    assert values["accuracy"].value == pytest.approx(now.mean() - was.mean())
    assert values["correct_to_wrong"].value == (was & ~now).mean() and values["wrong_to_correct"].value == (~was & now).mean()
    changed = [a != b for a, b in zip(BEFORE["filtered"].to_pylist(), AFTER["filtered"].to_pylist(), strict=True)]
    assert values["flip_rate"].value == np.mean(changed)
    assert values["true_label_prob"].family == "primary" and values["auroc"].p_adjusted is not None
    assert values["deferral_accuracy_20_percent"].share == pytest.approx(0.2, abs=0.05)
    assert set(values) <= set(METRICS) and "kl_divergence" not in values


def test_the_verdict_goes_by_accuracy_loss_and_calibration(values):
    verdict = judge({"free": values}, MARGINS, SETTINGS)
    assert verdict.verdict == "inferior" and set(verdict.margins) == {"accuracy", "nll", "calibration_error"}


def test_a_task_that_full_precision_never_answers_is_not_judged():
    comparison = compare(side(0.0, 0.2), side(0.0, 0.5), SETTINGS, 4.0)
    verdict = judge(comparison, MARGINS, SETTINGS)
    assert verdict.verdict == "not judged" and "accuracy 0.000, guessing 0.000" in verdict.excluded["free"]


def test_noise_is_measured_on_what_two_models_have_in_common():
    compared = compare(BEFORE, AFTER, SETTINGS, 4.0, noisy=[side(0.7, 0.3), side(0.6, 0.3)])["free"]
    assert {name for name in compared if name.startswith("noise_control/")} == {
        f"noise_control/{name}"
        for name in ("accuracy", "confidence", "true_label_prob", "nll", "expected_calibration_error", "flip_rate")
    }
