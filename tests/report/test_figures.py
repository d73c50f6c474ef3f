"""A run's figures: intervals are drawn where they are, and each says what it shows."""

from __future__ import annotations

import dataclasses

import pytest
from scipy.stats import binomtest

from bitsure.comparison import compare
from bitsure.report import figures
from tests.builders.answers import paired_runs
from tests.builders.settings import METRIC


@pytest.fixture(scope="module")
def values():
    full, quant, _ = paired_runs()
    return compare(full, quant, METRIC)["t"]


def intervals(panel):
    """The intervals that a panel's layers draw: lower and upper ends."""
    rules = [layer for layer in panel["layer"] if layer["mark"]["type"] == "rule" and "y2" in layer["encoding"]]
    return [(row["low"], row["high"]) for rule in rules for row in rule["data"]["values"]]


def test_an_interval_that_excludes_its_value_is_drawn_where_it_is(values):
    first = values["harm_stratum_1"].model_copy(update={"value": 0.5, "ci_low": -0.2, "ci_high": 0.1})
    missing = values["harm_stratum_2"].model_copy(update={"value": None, "ci_low": None, "ci_high": None})
    changed = values | {"harm_stratum_1": first, "harm_stratum_2": missing}
    chart = figures.shift_chart("t", changed)
    ends = intervals(chart.spec["hconcat"][0])
    assert ends[0] == pytest.approx((-0.2, 0.1)) and len(ends) == figures.STRATA - 1
    assert chart.svg.count("harm in fifth") == figures.STRATA - 1


def test_a_reliability_diagram_has_intervals_of_the_confidence_level():
    full, _, _ = paired_runs(400)
    models = figures._models(full, None, False, "none")
    right = int(models["full precision"].correct.sum())
    for level in (0.5, 0.95):
        metric = dataclasses.replace(METRIC, n_bins=1, confidence_level=level)
        [ends] = intervals(figures.reliability_chart("t", models, metric).spec["vconcat"][0])
        wilson = binomtest(right, 400).proportion_ci(level, method="wilson")
        assert ends == pytest.approx((wilson.low, wilson.high), rel=1e-5)


def test_findings_have_the_numbers(values):
    full, quant, _ = paired_runs()
    models = figures._models(quant, full, True, "none")
    accuracy = models["quantized"].correct.mean()
    assert f"accuracy of {accuracy:.3f}" in figures.reliability_chart("t", models, METRIC).finding
    deferral = figures.deferral_chart("t", values)
    assert f"quantized alone {values['accuracy'].quantized:.3f}" in deferral.finding
    assert deferral.svg.count("answered in full precision: accuracy") == 9
