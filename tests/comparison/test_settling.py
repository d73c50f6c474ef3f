"""What would settle a verdict: forecasts of questions, or another margin."""

from __future__ import annotations

import math

import pytest

from bitsure.comparison import judge
from bitsure.comparison.settling import question_range
from bitsure.comparison.verdict_words import verdict_details
from bitsure.results import Difference
from bitsure.results.run_files import QuestionCount
from bitsure.results.verdict import QuestionsNeeded
from tests.builders.comparisons import NAMES, NOTHING, POWER_Z, Z, around, comparison
from tests.builders.settings import MARGINS, METRIC


def test_a_loss_that_is_sure_is_the_least_that_its_interval_allows():
    """The NLL surely rises, within its margin; the calibration error, which limits, may not have risen."""
    tasks = {}
    for task in ("a", "b"):
        tasks |= comparison(around(0, 0.001), around(0.01, 0.001), around(0, 0.008), task, variance_error=0.1)
    verdict = judge(tasks, MARGINS, METRIC)
    assert verdict.verdict == "undecided"
    growth = ((Z + POWER_Z) * 0.008 / math.sqrt(2) / 0.01) ** 2
    assert verdict.questions_needed.if_lossless == pytest.approx(2000 * (growth - 1), rel=1e-3)
    assert verdict.settles.startswith(
        "At best, 2,400 to 3,800 more questions would let you ship it (80% power); these 2,000 settle "
    )
    by_task = verdict_details(verdict).popitem()[1]
    assert all("; at best " in line and len(line) <= 160 for line in by_task)


@pytest.mark.parametrize(
    ("available", "words"),
    [
        ({"t": 1000}, " (80% power), but the tasks have no more; these 1,000 settle"),
        ({"t": 1600}, " (80% power), but the tasks have only 600 more; these 1,000 settle"),
        ({"t": 9000}, " (80% power); these 1,000 settle"),
        ({}, " (80% power); these 1,000 settle"),  # as of a harness log, which does not say
    ],
)
def test_a_forecast_says_where_the_tasks_have_fewer_questions(available, words):
    questions = {task: QuestionCount(asked=1000, available=n) for task, n in available.items()}
    compared = comparison(around(0, 0.008), NOTHING, NOTHING, variance_error=0.1)
    verdict = judge(compared, MARGINS, METRIC, questions=questions)
    assert 600 < verdict.questions_needed.low < 8000 and words in verdict.settles


@pytest.mark.parametrize(
    ("available", "words"),
    [
        ((1000, 11_000), " (80% power), but some tasks have too few more for their share; these 2,000 settle"),
        ((1100, 1200), " (80% power), but the tasks have only 300 more; these 2,000 settle"),
        ((11_000, 11_000), " (80% power); these 2,000 settle"),
    ],
)
def test_a_forecast_counts_questions_in_the_proportions_of_the_tasks(available, words):
    """Where one task has none left, asking another one alone does not settle the mean over both."""
    compared = comparison(around(0, 0.008), NOTHING, NOTHING, "a", variance_error=0.1)
    compared |= comparison(around(0, 0.008), NOTHING, NOTHING, "b", variance_error=0.1)
    questions = {task: QuestionCount(asked=1000, available=n) for task, n in zip("ab", available, strict=True)}
    verdict = judge(compared, MARGINS, METRIC, questions=questions)
    assert 300 < verdict.questions_needed.low < 10_000 and words in verdict.settles


def test_a_forecast_that_spans_more_than_a_factor_of_ten_tells_its_lower_end_and_why():
    compared = comparison(around(0, 0.008), NOTHING, NOTHING, variance_error=0.7)
    verdict = judge(compared, MARGINS, METRIC)
    assert verdict.questions_needed.high > 10 * verdict.questions_needed.low > 0
    assert verdict.settles.startswith(
        "If nothing is lost, over 270 more questions would settle it (80% power; how many is uncertain); these 1,000 "
    )


def test_a_forecast_of_calibration_counts_that_its_limit_is_estimated():
    """Near calibration an error of .01 before may be 0 or .03, so that the limit is a half, or several times as large."""
    error = Difference(value=0.0, ci_low=-0.002, ci_high=0.002, n=1000, variance_error=0.1, baseline=0.0001, quantized=0.0001)
    tasks = comparison(NOTHING, NOTHING, NOTHING, variance_error=0.1)
    tasks["t"][NAMES[2]] = error
    narrow = judge(tasks, MARGINS, METRIC).questions_needed
    tasks["t"][NAMES[2]] = error.model_copy(update={"baseline_ci": (-0.0007, 0.0009), "quantized_ci": (-0.0007, 0.0009)})
    wide = judge(tasks, MARGINS, METRIC).questions_needed
    assert narrow.high < 2 * narrow.if_lossless
    assert wide.low < wide.if_lossless / 5 and wide.high > 3 * wide.if_lossless


def test_a_forecast_does_not_jump_with_a_small_change_of_a_calibration_error():
    """The change of the error, ±√|rise| = ±.014, lies on either side of its margin of .01."""
    needed = []
    for rise in (-2e-4, 0.0, 2e-4):
        tasks = comparison(NOTHING, NOTHING, NOTHING, variance_error=0.1)
        ends = {"ci_low": rise - 0.001, "ci_high": rise + 0.001, "n": 1000, "variance_error": 0.1}
        tasks["t"][NAMES[2]] = Difference(value=rise, baseline=-1e-4, quantized=rise - 1e-4, **ends)
        needed.append(judge(tasks, MARGINS, METRIC).questions_needed.if_lossless)
    assert needed == pytest.approx([203_000] * 3, rel=0.01)


def test_a_model_that_is_close_to_the_margin_is_told_so():
    verdict = judge(comparison(around(-0.007, 0.002), NOTHING, NOTHING, variance_error=0.1), MARGINS, METRIC)
    assert verdict.questions_needed.if_lossless == 0
    assert verdict.settles == (
        "These 1,000 questions would have settled a smaller loss (80% power): take more bits, or accept a margin above 0.011 "
        "for accuracy."
    )
    assert verdict.tasks["t"].sentence.endswith("95% interval; enough for a smaller loss).")
    verdict = judge(comparison(around(-0.009, 0.002), NOTHING, NOTHING, variance_error=0.1), MARGINS, METRIC)
    least = 0.009 - Z * 0.002  # that its interval allows
    growth = ((Z + POWER_Z) * 0.002 / (0.01 - least)) ** 2
    assert verdict.questions_needed.if_lossless == pytest.approx(1000 * (growth - 1), rel=1e-3)
    assert verdict.settles.startswith("At best, 67 to 580 more questions would let you ship it (80% power); ")


def test_power_of_several_metrics_is_that_of_all_together():
    """Three independent metrics of one error: each needs a power of the cube root of .8."""
    alike = comparison(around(0.0, 0.008), around(0.0, 0.016), around(0.0, 0.008))
    needed = judge(alike, MARGINS, METRIC).questions_needed
    assert needed.if_lossless == pytest.approx(1000 * (((Z + 1.463376) * 0.8) ** 2 - 1), rel=1e-3)
    assert needed.low is None and needed.high is None  # the variances' own errors are not known


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1601, 4680, "1,600 to 4,700"),
        (2001, 2004, "2,000"),
        (20_100, None, "over 20,000"),
        (8_100, 280_000, "over 8,100"),
        (0, 580, "up to 580"),
        (0, None, "about 2,900"),
        (0, 1e9, "about 2,900"),
        (None, None, "about 2,900"),
        (2e7, 9e9, "> 10,000,000"),
    ],
)
def test_a_forecast_says_where_it_ends_if_it_ends(low, high, text):
    assert question_range(QuestionsNeeded(if_lossless=2900, low=low, high=high)) == text
