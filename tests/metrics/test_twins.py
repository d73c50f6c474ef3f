"""Twins are paired by their documents; how often answers change is measured, compared, and counts in no mean over tasks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bitsure.comparison import compare, judge
from bitsure.metrics import measure
from bitsure.metrics.metric_names import MACRO, TWIN_ACCURACY_CHANGE, TWIN_FLIP_RATE
from bitsure.report.twin_sentences import twin_sentences
from bitsure.run.tracked_numbers import mean_values, task_values
from tests.builders.records import record
from tests.builders.settings import MARGINS, METRIC

TWIN = "t@typos"


def answered(right: list[bool], right_in_other_words: list[bool], unchanged: int = 0):
    """Records of questions with choice 0 right, and of their twins in another order; the first have the same prompt in both."""
    rows = [record([-1, -2] if is_right else [-2, -1], doc_id=i) for i, is_right in enumerate(right)]
    twins = [
        record(
            [-1, -2] if is_right else [-2, -1], task=TWIN, doc_id=i, prompt_hash=f"{'' if i < unchanged else 'twin '}prompt{i}"
        )
        for i, is_right in enumerate(right_in_other_words)
    ]
    return [*rows, *reversed(twins)]


def test_flips_are_of_the_pairs_whose_words_differ():
    right, other = [True] * 30 + [False] * 10, [True] * 25 + [False] * 13 + [True] * 2
    metrics = measure(answered(right, other), METRIC)
    rate, change = metrics[TWIN][TWIN_FLIP_RATE], metrics[TWIN][TWIN_ACCURACY_CHANGE]
    assert (rate.value, rate.n, change.value) == (pytest.approx(7 / 40), 40, pytest.approx(-3 / 40))
    assert rate.ci_low < rate.value < rate.ci_high and MACRO not in metrics
    fewer = measure(answered(right, other, unchanged=5), METRIC)[TWIN]
    assert (fewer[TWIN_FLIP_RATE].value, fewer[TWIN_FLIP_RATE].n) == (pytest.approx(7 / 35), 35)
    assert TWIN_FLIP_RATE not in measure([row for row in answered(right, other) if row.task == TWIN], METRIC)[TWIN]


def test_a_twin_has_no_part_in_the_mean_over_tasks_nor_in_the_verdict():
    generator = np.random.default_rng(0)
    right = (generator.random(60) < 0.9).tolist()
    alone = [row for row in answered(right, right) if row.task == "t"]
    second = [record([-1, -2], task="second", doc_id=i) for i in range(60)]
    with_twin = [*answered(right, [False] * 60), *second]
    assert measure(with_twin, METRIC)[MACRO] == measure([*alone, *second], METRIC)[MACRO]
    verdict, without = (judge(compare(rows, rows, METRIC), MARGINS, METRIC) for rows in (with_twin, [*alone, *second]))
    assert verdict.margins == without.margins
    assert {task: verdict.tasks[task] for task in ("t", "second")} == without.tasks
    assert verdict.tasks[TWIN].sentence == f"{TWIN}: not judged. It asks the questions of t again, in other words."


@pytest.mark.parametrize(
    ("flips", "mark"), [((2, 20), "✗ t@typos: 60 questions of t"), ((5, 6), "≈"), ((0, 0), "≈"), ((20, 2), "✓")]
)
def test_the_difference_of_flips_is_paired_and_said_with_a_mark(flips, mark):
    right = [True] * 60
    before, after = (answered(right, [False] * n + [True] * (60 - n)) for n in flips)
    comparison = compare(before, after, METRIC)
    rate = comparison[TWIN][TWIN_FLIP_RATE]
    assert (rate.baseline, rate.quantized) == (pytest.approx(flips[0] / 60), pytest.approx(flips[1] / 60))
    assert rate.value == pytest.approx((flips[1] - flips[0]) / 60)
    assert rate.ci_low < rate.value < rate.ci_high  # also where no answer changes
    [sentence] = twin_sentences({}, comparison)
    assert sentence.startswith(mark) and "each asked again with typing errors in it" in sentence


def test_tracking_has_a_key_for_the_flips_of_a_twin_and_its_original_for_the_headline():
    before, after = answered([True] * 40, [True] * 30 + [False] * 10), answered([True] * 40, [False] * 40)
    numbers = {"metrics": measure(after, METRIC), "baseline_metrics": measure(before, METRIC)}
    report = SimpleNamespace(**numbers, comparison=compare(before, after, METRIC))
    assert task_values(report, TWIN)[f"{TWIN_FLIP_RATE}/{TWIN}/change"] == pytest.approx(0.75)
    assert mean_values(report)[0]["accuracy/mean"] == numbers["metrics"]["t"]["accuracy"].value


def test_a_model_that_guesses_is_not_called_robust():
    before = answered([True] * 60, [True] * 40 + [False] * 20)
    after = answered([False] * 60, [False] * 60)
    [sentence] = twin_sentences({}, compare(before, after, METRIC))
    assert sentence.startswith("≈") and "a model that always guesses alike never changes its answer" in sentence
    assert "Accuracy changes by 0.0 points, in full precision by -33.3 points: +33.3 points [" in sentence
    [alone] = twin_sentences(measure(before, METRIC), None)
    assert "33.3% of the answers change, and accuracy by -33.3 points [" in alone
