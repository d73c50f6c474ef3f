from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from bitsure.comparison import compare
from tests.builders.answers import paired_runs, two_choices
from tests.builders.records import record
from tests.builders.settings import METRIC

pytestmark = pytest.mark.usefixtures("blank_pictures")


def test_differences_are_paired_and_agree_with_scipy():
    full, quant, difference = paired_runs()
    result = compare(full, quant, METRIC)["t"]["true_label_prob"]
    assert result.value == pytest.approx(difference.mean())
    assert result.quantized - result.baseline == pytest.approx(result.value)
    assert result.ci_low < difference.mean() < result.ci_high
    assert result.ci_high - result.ci_low == pytest.approx(2 * 1.96 * difference.std() / math.sqrt(200), rel=0.15)
    expected = stats.ttest_1samp(difference, 0)
    assert (result.statistic, result.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert result.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert result.significant and result.test == "paired t-test"


def test_the_order_of_rows_does_not_matter():
    full, quant, _ = paired_runs()
    assert compare(full, quant, METRIC)["t"]["accuracy"] == compare(full[::-1], quant, METRIC)["t"]["accuracy"]


def test_the_mean_over_tasks_has_the_intervals_of_its_tasks():
    """One answer of 100 flips in each of two tasks: the tasks' intervals, of paired proportions, hold 0, and the mean's too."""
    full, quant = [], []
    for task in ("a", "b"):
        asked = [dataclasses.replace(two_choices(0.9, 0, i), task=task) for i in range(100)]
        full += asked
        quant += [dataclasses.replace(two_choices(0.3, 0, 0), task=task), *asked[1:]]
    results = compare(full, quant, METRIC)
    ends = [results[task]["accuracy"] for task in ("a", "b")]
    mean = results["macro_average"]["accuracy"]
    assert mean.ci_high == pytest.approx(-0.01 + math.hypot(*(of_task.ci_high + 0.01 for of_task in ends)) / 2)
    assert mean.ci_low == pytest.approx(-0.01 - math.hypot(*(of_task.ci_low + 0.01 for of_task in ends)) / 2)
    assert mean.ci_low < -0.01 < 0 < mean.ci_high


def test_flips_by_hand():
    full = [two_choices(p, 0, i) for i, p in enumerate([0.9, 0.9, 0.9, 0.4])]
    quant = [two_choices(p, 0, i) for i, p in enumerate([0.9, 0.3, 0.2, 0.6])]
    result = compare(full, quant, METRIC)["t"]
    assert result["flip_rate"].value == 0.75
    assert (result["correct_to_wrong"].value, result["wrong_to_correct"].value) == (0.5, 0.25)
    assert result["correct_to_wrong"].p_value == pytest.approx(1.0)  # 2 against 1 of 3
    assert result["accuracy"].value == pytest.approx(-0.25)


def test_a_flip_between_wrong_choices_changes_no_correctness():
    result = compare([record([-1, -2, -9], gold=2)], [record([-2, -1, -9], gold=2)], METRIC)["t"]
    assert result["flip_rate"].value == 1 and result["correct_to_wrong"].value == result["wrong_to_correct"].value == 0


def test_the_same_run_twice_differs_in_nothing():
    full, _, _ = paired_runs()
    result = compare(full, full, METRIC)["t"]
    assert result["true_label_prob"].value == 0 and result["true_label_prob"].p_value == 1
    assert not result["true_label_prob"].significant
    assert result["flip_rate"].value == 0 and result["correct_to_wrong"].p_value == 1


def test_numbers_that_do_not_exist_are_null_on_either_side():
    full, quant = [two_choices(0.9, 0, i) for i in range(4)], [two_choices(0.3 if i else 0.9, 0, i) for i in range(4)]
    result = compare(full, quant, METRIC)["t"]["confidence_wrong"]
    assert (result.value, result.baseline) == (None, None) and result.quantized == pytest.approx(0.7)
    assert (result.n_baseline, result.n_quantized) == (0, 3)


def test_what_does_not_join_is_counted():
    full, quant, _ = paired_runs(10)
    result = compare(full[:8], quant[2:], METRIC)["t"]
    counts = [result[f"questions_{name}"].value for name in ("joined", "only_baseline", "only_quantized")]
    assert counts == [6, 2, 2]


def test_p_values_are_adjusted_over_the_tasks():
    a, b = paired_runs(task="a"), paired_runs(task="b", shift=0.0, seed=1)
    results = compare(a[0] + b[0], a[1] + b[1], METRIC)
    for task in "ab":
        assert results[task]["true_label_prob"].p_adjusted >= results[task]["true_label_prob"].p_value
    smaller = min(results[task]["true_label_prob"].p_value for task in "ab")
    assert min(results[task]["true_label_prob"].p_adjusted for task in "ab") == pytest.approx(2 * smaller)


def test_only_the_primary_test_is_confirmatory():
    full, quant, _ = paired_runs()
    result = compare(full, quant, METRIC)["t"]
    families = {name: one.family for name, one in result.items() if one.family is not None}
    assert [name for name, family in families.items() if family == "primary"] == ["true_label_prob"]
    assert len(families) > 15
    for name, one in result.items():
        assert (one.p_value is not None) == (name in families)
        if name in families:
            assert one.p_adjusted >= one.p_value - 1e-15
            low, high = one.effect_size_ci
            assert low <= one.effect_size <= high and one.effect, name


def test_a_uniform_loss_of_log_odds_is_harm_without_slope_or_instability():
    rng = np.random.default_rng(0)
    z = rng.normal(0.5, 1.5, 300)
    full = [record([x / 2 - 20, -x / 2 - 20], doc_id=i) for i, x in enumerate(z)]
    quant = [record([x / 2 - 20.06, -x / 2 - 19.94], doc_id=i) for i, x in enumerate(z)]
    result = compare(full, quant, METRIC)["t"]
    assert result["harm"].value == pytest.approx(-0.12)
    assert result["instability"].value == pytest.approx(0, abs=1e-6)
    assert result["harm_slope"].value == pytest.approx(0, abs=1e-6)
    for k in range(1, 6):
        assert result[f"harm_stratum_{k}"].value == pytest.approx(-0.12) and result[f"harm_stratum_{k}"].n == 60


def test_noise_by_certainty_is_seen_where_it_is():
    rng = np.random.default_rng(0)
    z = np.sort(rng.uniform(0, 4, 500))
    noise = rng.normal(0, np.where(np.arange(500) < 250, 1.0, 0.1))
    full = [record([x - 20, -20], doc_id=i) for i, x in enumerate(z)]
    quant = [record([x + e - 20, -20], doc_id=i) for i, (x, e) in enumerate(zip(z, noise, strict=True))]
    result = compare(full, quant, METRIC)["t"]
    assert result["instability_stratum_1"].value == pytest.approx(1, abs=0.15)
    assert result["instability_stratum_5"].value == pytest.approx(0.1, abs=0.02)


def test_what_a_temperature_mends_and_what_it_does_not():
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (800, 3))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    gold = [int(rng.choice(3, p=row)) for row in p]
    full = [record((row - 30).tolist(), gold=g, doc_id=i) for i, (row, g) in enumerate(zip(z, gold, strict=True))]
    sharper = [record((3 * row - 30).tolist(), gold=g, doc_id=i) for i, (row, g) in enumerate(zip(z, gold, strict=True))]
    result = compare(full, sharper, METRIC)["t"]
    assert result["temperature"].quantized == pytest.approx(3 * result["temperature"].baseline, rel=0.02)
    for name in ("baseline", "quantized"):
        low, high = getattr(result["temperature"], f"{name}_ci")
        assert 0 < low < getattr(result["temperature"], name) < high
    assert result["temperature"].ci_low > 1.5 and result["temperature"].resampled == "none: the influence of questions"
    assert result["nll_mended_by_temperature"].value == pytest.approx(result["nll"].value, abs=0.01)
    assert result["nll_beyond_temperature"].value == pytest.approx(0, abs=1e-3)
    # mended + beyond is all that was lost
    total = result["nll_mended_by_temperature"].value + result["nll_beyond_temperature"].value
    assert total == pytest.approx(result["nll"].value, abs=1e-9)


def test_the_macro_average_of_differences():
    a, b = paired_runs(task="a"), paired_runs(task="b", shift=0.0, seed=1)
    results = compare(a[0] + b[0], a[1] + b[1], METRIC)
    expected = np.mean([results[task]["true_label_prob"].value for task in "ab"])
    assert results["macro_average"]["true_label_prob"].value == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("gold", [[0], [0, 2], [0, 1, 2]])
def test_few_questions_and_several_right_choices_are_no_error(n, gold):
    full = [record([-1, -2, -3], gold=gold, doc_id=i) for i in range(n)]
    quant = [record([-1, -2.5, -3], gold=gold, doc_id=i) for i in range(n)]
    result = compare(full, quant, METRIC)["t"]
    assert result["questions_joined"].value == n
    assert (result["harm"].n, result["harm"].value is None) == ((0, True) if len(gold) == 3 else (n, False))
    assert not result["true_label_prob"].significant


def test_no_flip_does_not_prove_that_none_can_happen():
    full, _, _ = paired_runs(40, shift=0.0)
    result = compare(full, full, METRIC)["t"]["accuracy"]
    assert result.value == 0 and result.ci_low < -0.03 and result.ci_high > 0.03
    # Agresti & Min by hand: half a question is added to each of the four outcomes
    half = 1.959964 * math.sqrt(1.0) / 42
    assert (result.ci_low, result.ci_high) == pytest.approx((-half, half), rel=1e-5)


def test_a_task_that_does_not_join_is_reported_and_not_forgotten():
    from bitsure.comparison import judge
    from tests.builders.settings import MARGINS

    a, b = paired_runs(task="a"), paired_runs(task="b")
    other = [dataclasses.replace(row, prompt_hash="other") for row in b[1]]
    results = compare(a[0] + b[0], a[1] + other, METRIC)
    assert {name: one.value for name, one in results["b"].items()} == {
        "questions_joined": 0,
        "questions_equal": 0,
        "questions_only_baseline": 200,
        "questions_only_quantized": 200,
    }
    judged = judge(results, MARGINS, METRIC).tasks["b"]
    assert judged.verdict == "not judged" and "None of its questions is in both runs (200 in the full" in judged.sentence


def test_equal_certainty_has_no_slope():
    rng = np.random.default_rng(0)
    full = [two_choices(0.7, 0, i) for i in range(100)]
    quant = [two_choices(p, 0, i) for i, p in enumerate(np.sort(rng.uniform(0.5, 0.9, 100)))]
    assert compare(full, quant, METRIC)["t"]["harm_slope"].value is None


def test_the_debiased_errors_interval_lies_around_it():
    full, quant, _ = paired_runs(400)
    result = compare(full, quant, METRIC)["t"]["debiased_squared_calibration_error"]
    assert (result.ci_low + result.ci_high) / 2 == pytest.approx(result.value)


def test_other_right_choices_are_refused():
    from bitsure.base.errors import UserError

    with pytest.raises(UserError, match="different correct choices"):
        compare([two_choices(0.9, 0, 3)], [two_choices(0.9, 1, 3)], METRIC)


def test_clusters_are_resampled_folded_and_tested_together():
    rng = np.random.default_rng(0)
    full, _, _ = paired_runs(200, shift=0.0)
    shifts = np.repeat(rng.normal(0, 0.05, 40), 5)  # what the questions of a cluster share
    p = np.array([math.exp(row.choice_logprobs[0]) for row in full])
    quant = [two_choices(x, 0, i) for i, x in enumerate(np.clip(p + shifts, 0.01, 0.99))]
    clustered = [dataclasses.replace(row, cluster=f"c{i // 5}") for i, row in enumerate(quant)]
    alone, together = compare(full, quant, METRIC)["t"], compare(full, clustered, METRIC)["t"]
    width = [found["true_label_prob"].ci_high - found["true_label_prob"].ci_low for found in (alone, together)]
    assert width[1] == pytest.approx(math.sqrt(5) * width[0], rel=0.25)
    robust = together["true_label_prob_cluster_robust"]
    assert "true_label_prob_cluster_robust" not in alone
    assert robust.family == "exploratory" and robust.p_value > together["true_label_prob"].p_value
    assert together["true_label_prob"].p_value == alone["true_label_prob"].p_value  # the study's test is the study's
    assert robust.ci_high - robust.ci_low == pytest.approx(width[1], rel=0.15)
    assert robust.value == together["true_label_prob"].value and robust.n_clusters == 40


def test_the_deferral_curve_has_its_share_its_cost_and_deferral_at_random():
    full, quant, _ = paired_runs(400, shift=0.2)
    result = compare(full, quant, METRIC, bits_per_weight=4.0)["t"]
    lost = result["accuracy"].baseline - result["accuracy"].quantized
    for k in range(1, 10):
        point, gain = result[f"deferral_accuracy_{k}0_percent"], result[f"deferral_gain_{k}0_percent"]
        assert point.share == pytest.approx(k / 10, abs=0.05) and point.cost == pytest.approx(0.25 + point.share)
        assert point.random_accuracy == pytest.approx(result["accuracy"].quantized + point.share * lost)
        assert point.value - point.random_accuracy == pytest.approx(gain.value)
        assert point.ci_low <= point.value <= point.ci_high


def test_guessing_is_seen_in_the_report_once_and_not_in_the_log(tmp_path, caplog):
    from bitsure.report.report_contents import About
    from bitsure.report.run_report import build
    from tests.builders.settings import MARGINS

    rng = np.random.default_rng(0)

    def task(name, knows):
        z, gold = rng.normal(-20, 1, (200, 4)), rng.integers(0, 4, 200)
        z[np.arange(200), gold] += knows
        return [record(row.tolist(), gold=int(g), task=name, doc_id=i) for i, (row, g) in enumerate(zip(z, gold, strict=True))]

    both = task("guesses", 0) + task("knows", 2)
    made = build(tmp_path, both, both, METRIC, MARGINS, About("t"))
    warnings = {name: one.warning for name, one in made.verdict.tasks.items()}
    assert warnings["knows"] is None and "not clearly above guessing" in warnings["guesses"]
    assert made.page.read_text().count(warnings["guesses"]) == 1 and not caplog.records
