"""What quantizing does to thresholds, in words: sets that grow, promises that are broken or kept."""

from __future__ import annotations

import pytest

from bitsure.comparison import compare
from bitsure.report.threshold_sentences import threshold_sentences
from tests.builders.answers import harmed_runs, paired_runs
from tests.builders.settings import METRIC


def test_a_harmed_model_is_told_to_find_its_thresholds_again():
    full, quantized = harmed_runs()
    values = compare(full, quantized, METRIC)["t"]
    sets, coverage, deferral = threshold_sentences("t", values)
    size = values["conformal_set_size"]
    change = f"+{size.value:.2f} choices [+{size.ci_low:.2f}, +{size.ci_high:.2f}]"
    assert f"take {size.quantized:.2f} choices instead of {size.baseline:.2f} in full precision: {change}." in sets
    assert "hold one for 71.5% of the questions, full precision's for 89.8%: -18.3 points [-" in coverage
    low, high = values["conformal_coverage_at_full_threshold"].quantized_ci
    interval = f"[{low:.1%}, {high:.1%}]"
    assert coverage.endswith(
        f"It no longer holds: {interval} lies below the promised 90%. Find it again on the quantized model."
    )
    assert "50%" in deferral and "of its answers let more wrong answers of the quantized model pass: find them" in deferral
    assert "Worst is that for" in deferral and deferral.endswith("].")


def test_nothing_is_claimed_where_nothing_is_shown():
    full, quantized, _ = paired_runs(100, shift=0.0)
    _, coverage, deferral = threshold_sentences("t", compare(full, quantized, METRIC)["t"])
    assert (
        coverage.endswith("%] includes the promised 90%.")
        and "no confidence below which full precision defers is shown" in deferral
    )


@pytest.mark.parametrize(
    ("change", "interval", "words"),
    [
        ((-0.03, -0.01), (0.905, 0.925), "It still holds: [90.5%, 92.5%] does not reach below the promised 90%."),
        (
            (0.001, 0.01),
            (0.84, 0.88),
            "It no longer holds: [84.0%, 88.0%] lies below the promised 90%. Find it again on the quantized model.",
        ),
        ((-0.03, -0.01), (0.89, 0.92), "It may still hold: [89.0%, 92.0%] includes the promised 90%."),
    ],
)
def test_what_holds_goes_by_the_promise_and_not_by_the_change(change, interval, words):
    full, quantized, _ = paired_runs(60)
    values = compare(full, quantized, METRIC)["t"]
    metric = "conformal_coverage_at_full_threshold"
    ends = {"ci_low": change[0], "ci_high": change[1], "quantized_ci": interval}
    _, coverage, _ = threshold_sentences("t", values | {metric: values[metric].model_copy(update=ends)})
    assert coverage.endswith(words)


def test_few_questions_are_said_to_be_few():
    full, quantized, _ = paired_runs(20)
    _, coverage, _ = threshold_sentences("t", compare(full, quantized, METRIC)["t"])
    assert coverage.endswith("These are too few questions to say whether it still holds.")
