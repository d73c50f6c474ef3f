from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.metrics import measure
from bitsure.metrics.questions import question_set
from tests.builders.answers import two_choices
from tests.builders.records import record
from tests.builders.settings import METRIC


def test_golden_values_of_a_task():
    rows = [two_choices(0.9, 0, 0), two_choices(0.7, 1, 1), two_choices(0.8, 0, 2), two_choices(0.4, 1, 3)]
    results = measure(rows, METRIC)["t"]
    expected = {
        "accuracy": 3 / 4,
        "confidence": (0.9 + 0.7 + 0.8 + 0.6) / 4,
        "confidence_correct": (0.9 + 0.8 + 0.6) / 3,
        "confidence_wrong": 0.7,
        "true_label_prob": (0.9 + 0.3 + 0.8 + 0.6) / 4,
        "nll": -(math.log(0.9) + math.log(0.3) + math.log(0.8) + math.log(0.6)) / 4,
        "brier_score": 2 * (0.01 + 0.49 + 0.04 + 0.16) / 4,
        "overconfidence": 0.75 - 0.75,
        "expected_calibration_error": (0.1 + 0.7 + 0.2 + 0.4) / 4,
    }
    for name, value in expected.items():
        assert results[name].value == pytest.approx(value), name
        if name in ("expected_calibration_error", "confidence_wrong"):
            assert results[name].ci_low is None
        else:
            assert results[name].ci_low <= results[name].ci_high, name
    assert results["expected_calibration_error"].interval == "none: 4 questions"
    assert results["confidence_wrong"].interval == "none: 1 question"
    assert [results[name].n for name in ("accuracy", "confidence_correct", "confidence_wrong")] == [4, 3, 1]


def test_a_number_that_does_not_exist_is_null_and_not_zero():
    results = measure([two_choices(0.9, 0, i) for i in range(5)], METRIC)["t"]
    assert [getattr(results["confidence_wrong"], key) for key in ("value", "ci_low", "ci_high", "n")] == [None, None, None, 0]
    assert results["auroc"].value is None


def test_several_right_choices_have_another_brier_score():
    names = set(measure([record([-1, -2, -3], gold=[0, 1], doc_id=i) for i in range(3)], METRIC)["t"])
    assert "brier_score_set" in names and "brier_score" not in names


def test_tasks_are_kept_apart():
    rows = [two_choices(0.9, 0, i, "a") for i in range(3)] + [two_choices(0.9, 1, i, "b") for i in range(4)]
    results = measure(rows, METRIC)
    assert (results["a"]["accuracy"].value, results["b"]["accuracy"].value) == (1, 0)
    assert (results["a"]["accuracy"].n, results["b"]["accuracy"].n) == (3, 4)


def test_the_calibration_error_of_a_calibrated_model_is_near_its_null_value():
    rng = np.random.default_rng(0)
    rows = [two_choices(p := rng.uniform(0.5, 0.99), int(rng.random() > p), i) for i in range(2000)]
    results = measure(rows, METRIC)["t"]
    null = results["expected_calibration_error_if_calibrated"]
    assert results["expected_calibration_error"].value == pytest.approx(null.value, abs=0.015)
    assert null.ci_low < null.value < null.ci_high and "Bernoulli" in null.resampled
    assert results["expected_calibration_error"].ci_low < 0.01


@pytest.mark.parametrize(
    ("normalization", "lengths"), [("none", (1, 1)), ("token", (4, 2)), ("char", (3, 2)), ("byte", (3, 4))]
)
def test_normalization_divides_by_the_choices_length(normalization, lengths):
    row = record([-6.0, -4.0], choices=["abc", "éé"], choice_tokens=[4, 2])
    asked = question_set([row], normalization)
    scores = np.array([-6.0, -4.0]) / lengths
    assert asked.p == pytest.approx(np.exp(scores) / np.exp(scores).sum())


def test_normalization_by_tokens_needs_their_number():
    with pytest.raises(UserError, match="Take char or byte"):
        question_set([record([-1, -2], choice_tokens=None)], "token")


def test_what_a_normalization_does_to_the_temperature_is_undone_at_the_models_own():
    rng = np.random.default_rng(0)
    z = rng.normal(-20, 2, (400, 3))
    gold = [int(rng.choice(3, p=np.exp(row) / np.exp(row).sum())) for row in z]
    choices = ["abcd", "efgh", "ijkl"]  # of one length, so that dividing by it is a temperature and nothing else
    rows = [record(row.tolist(), gold=g, doc_id=i, choices=choices) for i, (row, g) in enumerate(zip(z, gold, strict=True))]
    plain, char = (measure(rows, dataclasses.replace(METRIC, normalization=n))["t"] for n in ("none", "char"))
    assert char["expected_calibration_error"].value > 3 * plain["expected_calibration_error"].value
    assert plain["temperature"].value == pytest.approx(4 * char["temperature"].value, rel=1e-3)
    assert plain["temperature"].ci_low < 1 < plain["temperature"].ci_high
    for name in ("nll", "expected_calibration_error", "debiased_squared_calibration_error"):
        at_own = [side[f"{name}_at_own_temperature"] for side in (plain, char)]
        assert at_own[0].value == pytest.approx(at_own[1].value, abs=1e-3) and at_own[0].n == 400


def test_the_macro_average_counts_tasks_alike():
    rows = [two_choices(0.9, 0, i, "a") for i in range(3)] + [two_choices(0.6, int(i < 2), i, "b") for i in range(4)]
    results = measure(rows, METRIC)
    assert results["macro_average"]["accuracy"].value == pytest.approx((1 + 0.5) / 2)
    assert results["macro_average"]["accuracy"].n == 2 and "macro_average" not in measure(rows[:3], METRIC)
    # no answer of task a is wrong, so b alone has a confidence on wrong ones
    assert results["macro_average"]["confidence_wrong"].n == 1


def test_questions_with_one_prompt_are_resampled_together():
    rows = [dataclasses.replace(two_choices(0.9, i % 2, i), prompt_hash=f"p{i // 4}") for i in range(160)]
    one = measure(rows, METRIC)["t"]["accuracy"]
    assert one.resampled == "clusters of questions (40)" and (one.n, one.n_clusters) == (160, 40)
    assert (
        measure([dataclasses.replace(row, prompt_hash=row.doc_hash) for row in rows], METRIC)["t"]["accuracy"].resampled
        == "questions"
    )


def test_questions_of_a_named_cluster_are_resampled_together_even_if_there_are_few():
    rows = [dataclasses.replace(two_choices(0.9, i // 20 % 2, i), cluster=f"c{i // 20}") for i in range(160)]
    one = measure(rows, METRIC)["t"]["accuracy"]
    alone = measure([dataclasses.replace(row, cluster=None) for row in rows], METRIC)["t"]["accuracy"]
    assert (one.resampled, one.n_clusters) == (
        "none: the variance of clusters of questions (8)",
        8,
    ) and alone.n_clusters is None
    assert one.ci_high - one.ci_low > 3 * (alone.ci_high - alone.ci_low)  # each cluster is all right or all wrong
    whole = [dataclasses.replace(row, cluster="c") for row in rows]
    assert measure(whole, METRIC)["t"]["accuracy"].resampled == "questions"  # nothing is left to resample


def test_guessing_by_hand():
    other = [record([-1, -2, -3], gold=i % 3, doc_id=i, choices=[f"{i}{k}" for k in range(3)]) for i in range(6)]
    assert question_set(other).guessed == pytest.approx(np.full(6, 1 / 3))
    several = record([-1, -2, -3, -4], gold=[0, 3], doc_id=9)
    assert question_set([*other, several]).guessed[-1] == 0.5
    # with the same choices always: the second is right in three of four questions
    same = [record([-1, -2], gold=g, doc_id=i, choices=["no", "yes"]) for i, g in enumerate([1, 1, 0, 1])]
    assert question_set(same).guessed.tolist() == [1, 1, 0, 1]
    assert measure(same, METRIC)["t"]["accuracy_above_guessing"].value == pytest.approx(1 / 4 - 3 / 4)


def test_one_question_is_enough_for_numbers():
    results = measure([two_choices(0.9, 0, 0)], METRIC)["t"]
    assert results["accuracy"].value == 1 and results["auroc"].value is None


def test_the_study_stands_beside_the_corrected_numbers():
    rows = [two_choices(0.9, i % 2, i) for i in range(10)]
    results = measure(rows, dataclasses.replace(METRIC, paper_compat=True))["t"]
    assert results["paper_compat/conf"].value == pytest.approx(results["confidence"].value)
    assert results["paper_compat/ace"].value == pytest.approx(0.4)  # |0.9 − the mean label|


def test_an_empty_prompt_that_all_share_makes_no_cluster():
    rows = [dataclasses.replace(two_choices(0.9, int(i % 3 == 0), i), prompt_hash="empty") for i in range(100)]
    one = measure(rows, METRIC)["t"]["accuracy"]
    assert one.resampled == "questions" and one.ci_high - one.ci_low > 0.1


def test_letters_of_options_have_no_meaning_and_words_have():
    letters = [record([-1, -2], gold=i % 2, doc_id=i, choices=["A", "B"]) for i in range(5)]
    words = [dataclasses.replace(row, choices=["no", "yes"]) for row in letters]
    assert "classwise_calibration_error" not in measure(letters, METRIC)["t"]
    assert "classwise_calibration_error" in measure(words, METRIC)["t"]
