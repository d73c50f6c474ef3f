from __future__ import annotations

import math

import pytest

from bitsure.base.errors import UserError
from bitsure.comparison import judge
from bitsure.comparison.verdict_words import BINNED_ERROR, outcome, question_range, verdict_details
from bitsure.config.schema import VerdictSettings
from bitsure.results import Difference
from bitsure.results.run_files import QuestionCount
from bitsure.results.verdict import QuestionsNeeded
from tests.builders.settings import MARGINS, METRIC

NAMES = ("accuracy", "nll", "debiased_squared_calibration_error")
Z, POWER_Z = 1.959964, 0.841621  # normal quantiles of .975 and .8


def comparison(accuracy, nll, calibration, task="t", n=1000, **fields):
    """Each metric as (value, low, high) of quantized − full; calibration that of the error around .05, whose square it is."""
    squared = tuple(0.1 * end for end in calibration)
    values = {
        name: Difference(value=value, ci_low=low, ci_high=high, n=n, **fields)
        for name, (value, low, high) in zip(NAMES, (accuracy, nll, squared), strict=True)
    }
    sides = {"baseline": 0.05**2, "quantized": 0.05**2}
    values[NAMES[2]] = values[NAMES[2]].model_copy(update=sides)
    probability = Difference(value=0.0, ci_low=-0.01, ci_high=0.01, n=n, smallest_detectable=0.02)
    return {task: values | {"true_label_prob": probability}}


def around(value, standard_error):
    return (value, value - Z * standard_error, value + Z * standard_error)


def guessing(compared, low=-0.01, standard_error=0.01):
    """The same task, on which full precision is `low` + 0.02 above guessing."""
    [(task, values)] = compared.items()
    above = Difference(value=low + 0.02, ci_low=low, ci_high=low + 0.04, standard_error=standard_error, n=1000)
    accuracy = values["accuracy"].model_copy(update={"baseline": 0.25 + low + 0.02})
    return {task: values | {"accuracy": accuracy, "baseline_accuracy_above_guessing": above}}


FINE = ((0.0, -0.009, 0.005), (0.0, -0.01, 0.019), (0.0, -0.02, 0.009))
BAD = (FINE[0], (0.5, 0.4, 0.6), FINE[2])
NOTHING = (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("moved", "expected", "sentence"),
    [
        ({}, "non-inferior", "ship it: negative log-likelihood is surely within its margin of 0.02 nats (unchanged ["),
        (
            {0: (-0.005, -0.011, 0.001)},
            "undecided",
            "accuracy is not surely within its margin of 0.01 (-0.0050 [-0.0110, +0.0010])",
        ),
        (
            {0: (0.003, -0.011, 0.017)},
            "undecided",
            "accuracy is not surely within its margin of 0.01 (+0.0030 [-0.0110, +0.0170])",
        ),
        ({0: (-0.05, -0.06, -0.04)}, "inferior", "accuracy is surely beyond its margin of 0.01 (-0.0500 [-0.0600, -0.0400])."),
        (
            {1: (0.03, 0.021, 0.04)},
            "inferior",
            "negative log-likelihood is surely beyond its margin of 0.02 nats (+0.0300 [+0.02",
        ),
        ({2: (0.01, 0.0, 0.02)}, "undecided", "debiased calibration error is not surely within its margin of 0.01 (+0.0100 ["),
        ({2: (0.05, 0.04, 0.06)}, "inferior", "debiased calibration error is surely beyond its margin of 0.01 (+0.0500 ["),
        ({0: (-0.05, -0.06, -0.04), 2: (0.01, 0.0, 0.02)}, "inferior", "ship it: accuracy is surely beyond its margin of 0.01"),
        ({0: (0.05, 0.04, 0.06)}, "non-inferior", "and so are accuracy and"),  # better than before is no loss
    ],
)
def test_one_task_by_its_intervals(moved, expected, sentence):
    verdict = judge(comparison(*(moved.get(i, change) for i, change in enumerate(FINE))), MARGINS, METRIC)
    assert verdict.verdict == verdict.tasks["t"].verdict == expected
    assert sentence in verdict.sentence and verdict.sentence.count("[") == 1 and len(verdict.sentence.split()) <= 26
    assert len(verdict.settles.split()) <= 26
    assert verdict.tasks["t"].sentence.startswith(f"t: {expected}. ")
    assert bool(verdict.settles) == (expected == "undecided")
    assert verdict.tasks["t"].smallest_detectable == 0.02
    assert (verdict.questions_needed is None) == (verdict.decidable_margin is None) == (expected != "undecided")


def test_the_mean_over_tasks_decides_by_hand():
    """Losses of .004 and 0 with errors of .005 and .01: .002 with an error of √(.005² + .01²) / 2."""
    tasks = comparison(around(-0.004, 0.005), NOTHING, NOTHING, "a", variance_error=0.1)
    tasks |= comparison(around(0.0, 0.01), NOTHING, NOTHING, "b", variance_error=0.2)
    verdict = judge(tasks, MARGINS, METRIC)
    error = math.sqrt(0.005**2 + 0.01**2) / 2
    accuracy = verdict.margins["accuracy"]
    assert verdict.verdict == "undecided" and verdict.n == 2000
    assert (accuracy.loss, accuracy.ci_low, accuracy.ci_high) == pytest.approx((0.002, 0.002 - Z * error, 0.002 + Z * error))
    assert verdict.decidable_margin == pytest.approx((Z + POWER_Z) * error, rel=1e-5)
    growth = ((Z + POWER_Z) * error / 0.01) ** 2
    spread = math.hypot(0.005**2 * 0.1, 0.01**2 * 0.2) / (0.005**2 + 0.01**2)
    needed = verdict.questions_needed
    assert needed.if_lossless == pytest.approx(2000 * (growth - 1), rel=1e-4)
    assert needed.low == pytest.approx(2000 * (growth * math.exp(-Z * spread) - 1), rel=1e-4)
    assert needed.high == pytest.approx(2000 * (growth * math.exp(Z * spread) - 1), rel=1e-4)
    assert verdict.sentence == (
        "Do not ship it yet: accuracy is not surely within its margin of 0.01 (-0.0020 [-0.0130, +0.0090])."
    )
    assert verdict.settles == (
        "If nothing is lost, 1,600 to 4,700 more questions would settle it (80% power); these 2,000 settle a margin of 0.016 "
        "for accuracy."
    )
    assert verdict_details(verdict) == {
        "Mean change over 2 tasks (2,000 questions, 95% intervals):": [
            "accuracy -0.0020 [-0.0130, +0.0090], margin 0.01: undecided",
            "negative log-likelihood unchanged [0.0000, 0.0000] nats, margin 0.02 nats: non-inferior",
            "debiased calibration error unchanged [0.0000, 0.0000], margin 0.01: non-inferior",
            BINNED_ERROR,
        ],
        "Each task by itself, with the questions that would settle it (80% power):": [
            "a: undecided. Accuracy -0.0040 [-0.0152, +0.0072] (1,000 questions, 97.5% interval; 900 to 2,000 more if nothing "
            "is lost).",
            "b: undecided. Accuracy unchanged [-0.0224, +0.0224] (1,000 questions, 97.5% interval; 5,100 to 14,000 more if "
            "nothing is lost).",
        ],
    }


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


def test_every_metric_that_is_not_within_its_margin_is_named_the_least_certain_first():
    verdict = judge(comparison(around(0, 0.006), around(0, 0.02), around(0, 0.008)), MARGINS, METRIC)
    assert verdict.sentence == (
        "Do not ship it yet: negative log-likelihood is not surely within its margin of 0.02 nats (unchanged [-0.0392, "
        "+0.0392] nats), nor are accuracy and debiased calibration error."
    )
    assert outcome(verdict) == "undecided: accuracy, negative log-likelihood and debiased calibration error"
    worse = judge(comparison((-0.05, -0.06, -0.04), (0.5, 0.4, 0.6), NOTHING), MARGINS, METRIC)
    assert (
        worse.sentence.endswith("and so is accuracy.")
        and outcome(worse) == "surely worse in accuracy and negative log-likelihood"
    )
    assert outcome(judge(comparison(*FINE), MARGINS, METRIC)) == "non-inferior"


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


def test_a_bad_task_does_not_decide_alone_but_is_named():
    verdict = judge(comparison(*FINE, task="a") | comparison(*BAD, task="bad"), MARGINS, METRIC)
    assert verdict.margins["nll"].loss == pytest.approx(0.25)
    assert verdict.tasks["bad"].verdict == "inferior" and verdict.tasks["a"].verdict == "non-inferior"
    assert set(judge(comparison(*FINE) | {"macro_average": {}}, MARGINS, METRIC).tasks) == {"t"}


def test_single_tasks_are_adjusted_by_holm_with_their_intervals():
    """Upper ends at 95%: .0096, .0097 and .02. The first two hold at 98.3 and 97.5% only if they reach less far."""
    tasks = {}
    for name, error in {"clear": 0.003, "close": 0.0045, "wide": 0.01}.items():
        tasks |= comparison(around(0.0, error), NOTHING, NOTHING, name)
    verdict = judge(tasks, MARGINS, METRIC)
    levels = {name: task.level for name, task in verdict.tasks.items()}
    assert levels == pytest.approx({"clear": 1 - 0.05 / 3, "close": 1 - 0.05 / 2, "wide": 1 - 0.05 / 2})
    assert [task.verdict for task in verdict.tasks.values()] == ["non-inferior", "undecided", "undecided"]
    close = verdict.tasks["close"].margins["accuracy"]
    assert close.ci_high == pytest.approx(2.241403 * 0.0045) and "97.5% interval;" in verdict.tasks["close"].sentence
    assert judge({"close": tasks["close"]}, MARGINS, METRIC).verdict == "non-inferior"


def test_a_task_on_which_full_precision_guesses_takes_no_part():
    verdict = judge(comparison(*FINE, task="a") | guessing(comparison(*BAD, task="guessed")), MARGINS, METRIC)
    assert verdict.verdict == "non-inferior" and verdict.n == 1000
    assert next(iter(verdict_details(verdict))) == "Mean change over 1 of 2 tasks (1,000 questions, 95% intervals):"
    [(task, reason)] = verdict.excluded.items()
    assert task == "guessed" and "(accuracy 0.260, guessing 0.250, difference [-0.010, +0.030])" in reason
    guessed = verdict.tasks["guessed"]
    assert (guessed.verdict, guessed.sentence) == ("not judged", f"guessed: not judged. {reason}.")
    assert guessed.margins["nll"].verdict == "inferior" and verdict.tasks["a"].warning is None
    alone = judge(guessing(comparison(*FINE)), MARGINS, METRIC)
    assert alone.verdict == outcome(alone) == alone.badge == "not judged"
    assert alone.sentence == "Not judged: the full-precision run is not clearly above guessing on t." and alone.settles
    assert verdict_details(alone) == {"Each task by itself:": [alone.tasks["t"].sentence]}  # the reason, once
    above = judge(guessing(comparison(*FINE), low=-0.002), MARGINS, METRIC)  # above guessing by a one-sided test at .05
    assert above.verdict == "non-inferior" and not above.excluded


@pytest.mark.parametrize("fields", [{"n": 29}, {"n_clusters": 29}])
def test_few_questions_or_clusters_of_one_task_decide_nothing(fields):
    tasks = comparison(*FINE, task="a") | comparison(*FINE, task="few", **fields)
    verdict = judge(tasks, MARGINS, METRIC)
    assert verdict.verdict == verdict.tasks["few"].verdict == "undecided" and verdict.tasks["a"].verdict == "non-inferior"
    for sentence in (verdict.sentence, verdict.tasks["few"].sentence):
        assert " verdict needs at least 30 questions, or clusters of them, in each task." in sentence


def test_whole_texts_have_their_own_mean_of_the_nll():
    """A rise of .03 nats of an answer's NLL is not made small by texts whose tokens rise by .001."""
    pages = comparison(NOTHING, around(0.001, 0.001), NOTHING, "pages", n=62)["pages"]
    tasks = comparison(NOTHING, around(0.03, 0.002), NOTHING, "arc") | {"pages": {"nll": pages["nll"]}}
    verdict = judge(tasks, MARGINS, METRIC)
    assert verdict.verdict == "inferior" and verdict.margins["nll"].loss == pytest.approx(0.03)
    assert verdict.margins["nll_per_token"].loss == pytest.approx(0.001) and verdict.margins["nll_per_token"].n == 62
    assert verdict.sentence.startswith(
        "Do not ship it: negative log-likelihood is surely beyond its margin of 0.02 nats (+0.0300 "
    )
    changes = next(iter(verdict_details(verdict).values()))
    assert "nats (1 task, 1,000 questions), margin 0.02 nats: inferior" in changes[1]
    assert "negative log-likelihood per token +0.0010 " in changes[3] and " nats (1 task, 62 questions), " in changes[3]


def test_margins_must_be_positive():
    with pytest.raises(UserError, match=r"verdict\.nll_margin=0"):
        VerdictSettings(strict=False, accuracy_margin=0.01, nll_margin=0, calibration_error_margin=0.01)


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
