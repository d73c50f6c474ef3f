"""Harm that noise explains, and harm that it does not."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.comparison import compare, judge
from bitsure.comparison.noise_control import slope_test
from bitsure.comparison.verdict_words import verdict_details
from bitsure.records.record import Records, to_table
from bitsure.results import to_json
from tests.builders.records import record
from tests.builders.settings import MARGINS, METRIC

SEEDS, N = 19, 300


def rows(logits: np.ndarray, task: str = "t") -> Records:
    return to_table([record(z - np.logaddexp.reduce(z), gold=i % 3, task=task, doc_id=i) for i, z in enumerate(logits)])


@pytest.fixture(scope="module")
def runs():
    """Full precision, 19 runs with noise on the logits, one more of those, and one that harms unsure questions alone."""
    random = np.random.default_rng(0)
    full = random.normal(size=(N, 3)) * random.uniform(0.2, 3, size=(N, 1))
    noisy = [rows(full + random.normal(size=full.shape) * 0.3) for _ in range(SEEDS + 1)]
    top = np.sort(full, axis=1)
    unsure = (top[:, 2] - top[:, 1]) < np.median(top[:, 2] - top[:, 1])
    gold = np.eye(3)[np.arange(N) % 3]
    hard = full + random.normal(size=full.shape) * 0.2 - 0.5 * gold * unsure[:, None]  # as large as the noise
    return rows(full), noisy[:-1], noisy[-1], rows(hard)


def test_noise_is_not_taken_for_a_finding_and_a_real_slope_is(runs):
    full, noisy, one_more, hard_on_the_unsure = runs
    found = [compare(full, run, METRIC, noisy=noisy)["t"]["harm_slope"] for run in (one_more, hard_on_the_unsure)]
    assert found[0].p_value > 0.05 and found[1].p_value == pytest.approx(1 / 20)
    assert found[1].test == "noise control of 19 seeds" and found[1].family == "exploratory"
    assert found[1].effect_size_ci[0] > 0


@pytest.mark.parametrize("scale", [0.6, 1.7])
def test_noise_of_another_size_is_no_control(runs, scale):
    full, noisy, _, _ = runs
    random = np.random.default_rng(1)
    logits = np.array(full["choice_logprobs"].to_pylist())
    other = [rows(logits + random.normal(size=logits.shape) * 0.3 * scale) for _ in noisy]
    found = compare(full, noisy[0], METRIC, noisy=other)
    assert found["t"]["harm_slope"].p_value is None and found["t"]["harm_slope"].test is None
    sentence = judge(found, MARGINS, METRIC).noise_control["t"].sentence
    assert (
        "Whether unsure questions fare worse than sure ones by more than such noise explains is not tested: its mean KL is 0."
        in sentence
    )
    assert "its standard deviation of the change in log-odds is 0." in sentence and "a factor of 1.25" in sentence
    advised = float(re.search(r"Try control\.scale=([\d.]+)\.", sentence)[1])  # brings noise of this scale to the quantizer's
    assert advised * scale == pytest.approx(1, abs=0.1)
    twice = judge(found, MARGINS, METRIC, noise_scale=2.0).noise_control["t"].sentence
    assert "noise of 2 times the output error" in twice
    assert float(re.search(r"Try control\.scale=([\d.]+)\.", twice)[1]) == pytest.approx(2 * advised, abs=0.15)


def test_the_p_value_counts_the_seeds_that_are_as_steep():
    slopes = [0.1, 0.2, 0.3, 0.4]
    assert slope_test(0.3, slopes).p_value == pytest.approx((1 + 2) / 5)
    assert slope_test(9.0, slopes).p_value == pytest.approx(1 / 5)
    assert slope_test(None, slopes) is slope_test(0.3, [*slopes, None]) is None


def test_each_number_stands_beside_the_range_of_the_noise(runs):
    full, noisy, one_more, _ = runs
    found = compare(full, one_more, METRIC, noisy=noisy)["t"]
    alone = [compare(full, run, METRIC)["t"] for run in noisy]
    for name in ("accuracy", "true_label_prob", "nll", "kl_divergence", "harm_slope", "harm_stratum_1"):
        values = [one[name].value for one in alone]
        entry = found[f"noise_control/{name}"]
        assert entry.seeds == pytest.approx(values) and entry.n == SEEDS
        assert (entry.ci_low, entry.ci_high) == pytest.approx((min(values), max(values)))


def test_the_verdict_says_where_the_model_lies(runs):
    full, noisy, one_more, hard = runs
    comparison = compare(full, hard, METRIC, noisy=noisy)
    judged = judge(comparison, MARGINS, METRIC)
    said = judged.noise_control["t"]
    assert said.places["true_label_prob"] == "worse" and "is worse than that" in said.sentence
    assert (
        "Unsure questions fare worse than sure ones by more than such noise explains (p = 0.05, unadjusted)." in said.sentence
    )
    assert verdict_details(judged)["Against the noise control:"] == [said.sentence]
    assert judge(compare(full, one_more, METRIC), MARGINS, METRIC).noise_control is None


def test_an_improvement_is_called_better_whether_its_number_rises_or_falls(runs):
    full, noisy, _, _ = runs
    logits = np.array(full["choice_logprobs"].to_pylist()) + 0.5 * np.eye(3)[np.arange(N) % 3]
    improved = judge(compare(full, rows(logits), METRIC, noisy=noisy), MARGINS, METRIC).noise_control["t"]
    places = {name: improved.places[name] for name in ("true_label_prob", "nll", "harm_stratum_1", "instability")}
    assert set(places.values()) == {"better"} and "is better than that" in improved.sentence
    assert improved.places["confidence"] in ("below", "within", "above")


def test_few_seeds_show_nothing_at_a_high_level(runs):
    full, noisy, _, hard = runs
    metric = dataclasses.replace(METRIC, confidence_level=0.99)
    sentence = judge(compare(full, hard, METRIC, noisy=noisy), MARGINS, metric).noise_control["t"].sentence
    assert "19 seeds cannot show at α = 0.01 (p = 0.05, unadjusted): that takes at least 99." in sentence
    assert "Unsure questions fare worse" not in sentence


def test_a_control_of_other_questions_is_refused(runs):
    full, noisy, one_more, _ = runs
    with pytest.raises(UserError, match="was not asked all the questions"):
        compare(full, one_more, METRIC, noisy=[*noisy[1:], noisy[0].slice(0, 200)])


def test_what_a_seed_does_not_have_is_null(runs):
    full, noisy, one_more, _ = runs
    found = compare(full.slice(0, 4), one_more.slice(0, 4), METRIC, noisy=[one.slice(0, 4) for one in noisy])
    to_json(found)
    assert None in [value.value for name, value in found["t"].items() if name.startswith("noise_control/harm_stratum")]
    judge(found, MARGINS, METRIC)
