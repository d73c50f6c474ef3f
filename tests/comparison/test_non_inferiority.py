from __future__ import annotations

import math

import pytest

from bitsure.base.errors import UserError
from bitsure.comparison import judge
from bitsure.config.schema import VerdictSettings
from bitsure.results import Difference
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
        ({}, "non-inferior", "surely within the margins of 0.01, 0.02 nats and 0.01"),
        ({0: (-0.005, -0.011, 0.001)}, "undecided", "ccuracy falls by 0.0050 [-0.0010, +0.0110]"),
        ({0: (0.003, -0.011, 0.017)}, "undecided", "ccuracy rises by 0.0030 [-0.0110, +0.0170]"),
        ({0: (-0.05, -0.06, -0.04)}, "inferior", "ccuracy falls by 0.0500 [+0.0400, +0.0600]"),
        ({1: (0.03, 0.021, 0.04)}, "inferior", "he NLL rises by 0.0300 [+0.0210, +0.0400] nats"),
        ({2: (0.01, 0.0, 0.02)}, "undecided", "he debiased calibration error rises by 0.0100"),
        ({2: (0.05, 0.04, 0.06)}, "inferior", "surely beyond the margin of 0.01"),
        ({0: (-0.05, -0.06, -0.04), 2: (0.01, 0.0, 0.02)}, "inferior", "ccuracy falls"),
        ({0: (0.05, 0.04, 0.06)}, "non-inferior", "ccuracy rises by 0.0500"),  # better than before is no loss
    ],
)
def test_one_task_by_its_intervals(moved, expected, sentence):
    verdict = judge(comparison(*(moved.get(i, change) for i, change in enumerate(FINE))), MARGINS, METRIC)
    assert verdict.verdict == verdict.tasks["t"].verdict == expected
    assert sentence in verdict.sentence and sentence in verdict.tasks["t"].sentence
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
    assert needed.at_loss_seen == pytest.approx(2000 * (growth * (0.01 / 0.008) ** 2 - 1), rel=1e-4)
    assert verdict.sentence == (
        "Over 2 tasks accuracy falls by 0.0020 [-0.0090, +0.0130] (2,000 questions, 95% intervals): not surely within the "
        "margin of 0.01; about 2,900 more [1,600, 4,700] would settle it at 80% power if nothing is lost; 2,000 can settle a "
        "margin of 0.016 for accuracy."
    )


def test_a_model_that_is_close_to_the_margin_is_told_so():
    undecided = comparison(around(-0.009, 0.002), NOTHING, NOTHING, variance_error=0.1)
    verdict = judge(undecided, MARGINS, METRIC)
    assert verdict.questions_needed.if_lossless == 0
    assert (
        "about 30,000 more would settle it at 80% power at the loss seen (those asked, if nothing were lost)"
        in verdict.sentence
    )
    verdict = judge(comparison(around(-0.01, 0.002), NOTHING, NOTHING), MARGINS, METRIC)
    assert verdict.questions_needed.at_loss_seen is None and "but at the loss seen no number settles it" in verdict.sentence


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
    assert close.ci_high == pytest.approx(2.241403 * 0.0045) and "97.5% intervals" in verdict.tasks["close"].sentence
    assert judge({"close": tasks["close"]}, MARGINS, METRIC).verdict == "non-inferior"


def test_a_task_on_which_full_precision_guesses_takes_no_part():
    verdict = judge(comparison(*FINE, task="a") | guessing(comparison(*BAD, task="guessed")), MARGINS, METRIC)
    assert verdict.verdict == "non-inferior" and verdict.n == 1000 and verdict.sentence.startswith("Over 1 of 2 tasks ")
    [(task, reason)] = verdict.excluded.items()
    assert task == "guessed" and "(accuracy 0.260, guessing 0.250, difference [-0.010, +0.030])" in reason
    assert verdict.tasks["guessed"].warning in verdict.tasks["guessed"].sentence and verdict.tasks["a"].warning is None
    alone = judge(guessing(comparison(*FINE)), MARGINS, METRIC)
    assert alone.verdict == "undecided" and alone.sentence.startswith("No task takes part in the verdict (t: The full-")
    above = judge(guessing(comparison(*FINE), low=-0.002), MARGINS, METRIC)  # above guessing by a one-sided test at .05
    assert above.verdict == "non-inferior" and not above.excluded


@pytest.mark.parametrize("fields", [{"n": 29}, {"n_clusters": 29}])
def test_few_questions_or_clusters_of_one_task_decide_nothing(fields):
    tasks = comparison(*FINE, task="a") | comparison(*FINE, task="few", **fields)
    verdict = judge(tasks, MARGINS, METRIC)
    assert verdict.verdict == verdict.tasks["few"].verdict == "undecided" and verdict.tasks["a"].verdict == "non-inferior"
    for sentence in (verdict.sentence, verdict.tasks["few"].sentence):
        assert "a verdict needs at least 30 questions, or clusters of them, in each task" in sentence


def test_whole_texts_have_their_own_mean_of_the_nll():
    """A rise of .03 nats of an answer's NLL is not made small by texts whose tokens rise by .001."""
    pages = comparison(NOTHING, around(0.001, 0.001), NOTHING, "pages", n=62)["pages"]
    tasks = comparison(NOTHING, around(0.03, 0.002), NOTHING, "arc") | {"pages": {"nll": pages["nll"]}}
    verdict = judge(tasks, MARGINS, METRIC)
    assert verdict.verdict == "inferior" and verdict.margins["nll"].loss == pytest.approx(0.03)
    assert verdict.margins["nll_per_token"].loss == pytest.approx(0.001) and verdict.margins["nll_per_token"].n == 62
    assert verdict.sentence.startswith("Over 2 tasks the NLL rises by 0.0300 ")
    assert "nats (1 task, 1,000 questions), 95% intervals: surely beyond the margin of 0.02 nats" in verdict.sentence


def test_margins_must_be_positive():
    with pytest.raises(UserError, match=r"verdict\.nll_margin=0"):
        VerdictSettings(strict=False, accuracy_margin=0.01, nll_margin=0, calibration_error_margin=0.01)
