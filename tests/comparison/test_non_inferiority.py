from __future__ import annotations

import math

import pytest

from bitsure.base.errors import UserError
from bitsure.comparison import judge
from bitsure.comparison.verdict_words import BINNED_ERROR, outcome, verdict_details
from bitsure.config.schema import VerdictSettings
from tests.builders.comparisons import BAD, FINE, NOTHING, POWER_Z, Z, around, comparison, guessing
from tests.builders.settings import MARGINS, METRIC


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
            "debiased calibration error (root of the tasks' mean square) unchanged [0.0000, 0.0000], margin 0.01: non-inferior",
            BINNED_ERROR,
        ],
        "Each task by itself, with the questions that would settle it (80% power):": [
            "a: undecided. Accuracy -0.0040 [-0.0152, +0.0072] (1,000 questions, 97.5% interval; 900 to 2,000 more if nothing "
            "is lost).",
            "b: undecided. Accuracy unchanged [-0.0224, +0.0224] (1,000 questions, 97.5% interval; 5,100 to 14,000 more if "
            "nothing is lost).",
        ],
    }


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
