"""Two models' written answers: what is compared, and what a verdict makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bitsure.comparison import compare, judge
from bitsure.metrics.metric_registry import METRICS
from bitsure.metrics.run_metrics import measure
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


def with_column(records, name, values):
    field = records.schema.field(name)
    return records.set_column(records.schema.get_field_index(name), field, pa.array(values, field.type))


def test_answers_to_open_questions_have_no_verdict_and_no_part_in_the_primary_tests():
    before, after = (with_column(side, "correct", [None] * N) for side in (BEFORE, AFTER))
    preferred = with_column(after, "preference", [0.1] * 10 + [0.0] * 30 + [-0.2] * (N - 40))
    comparison = compare(before, preferred, SETTINGS, 4.0, noisy=[after])
    values = comparison["free"]
    assert set(values) <= {*METRICS, "noise_control/flip_rate"} and not {"accuracy", "nll", "true_label_prob"} & set(values)
    assert values["preference/quantized"].value == 10 / N and values["preference/equal"].value == 30 / N
    assert values["preference/balance"].value == pytest.approx((10 - (N - 40)) / N)
    assert values["preference/balance"].ci_high < 0
    verdict = judge(comparison, MARGINS, SETTINGS)
    assert verdict.verdict == "not judged" and "open" in verdict.excluded["free"]
    assert "accuracy" not in measure(after, SETTINGS)["free"] and "macro_average" not in measure(after, SETTINGS)


def test_preferences_are_full_precisions_own_and_not_between_two_quantized_models():
    quantized = with_column(AFTER, "preference", [-0.1] * N)
    assert "preference/full" in compare(BEFORE, quantized, SETTINGS, 4.0)["free"]
    assert "preference/full" not in compare(quantized, quantized, SETTINGS, 4.0)["free"]


def test_noise_is_measured_on_what_two_models_have_in_common():
    compared = compare(BEFORE, AFTER, SETTINGS, 4.0, noisy=[side(0.7, 0.3), side(0.6, 0.3)])["free"]
    assert {name for name in compared if name.startswith("noise_control/")} == {
        f"noise_control/{name}"
        for name in ("accuracy", "confidence", "true_label_prob", "nll", "expected_calibration_error", "flip_rate")
    }
