"""Verdicts in words."""

from __future__ import annotations

from bitsure.comparison import judge
from bitsure.comparison.verdict_words import outcome
from tests.builders.comparisons import FINE, NOTHING, around, comparison
from tests.builders.settings import MARGINS, METRIC


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
