"""A run's figures: intervals are drawn where they are, and each says what it shows."""

from __future__ import annotations

import dataclasses

import pytest
from scipy.stats import binomtest

from bitsure.comparison import compare
from bitsure.records import to_table
from bitsure.report import figures
from tests.builders.answers import paired_runs
from tests.builders.charts import drawn_intervals
from tests.builders.settings import METRIC


@pytest.fixture(scope="module")
def values():
    full, quant, _ = paired_runs()
    return compare(full, quant, METRIC)["t"]


def test_a_reliability_diagram_has_intervals_of_the_confidence_level():
    full, _, _ = paired_runs(400)
    models = figures._models(to_table(full), None, False, METRIC)
    right = int(models["full precision"].correct.sum())
    for level in (0.5, 0.95):
        metric = dataclasses.replace(METRIC, n_bins=1, confidence_level=level)
        [ends] = drawn_intervals(figures.reliability_chart("t", models, metric).spec["vconcat"][0])
        wilson = binomtest(right, 400).proportion_ci(level, method="wilson")
        assert ends == pytest.approx((wilson.low, wilson.high), rel=1e-5)


def test_findings_have_the_numbers(values):
    full, quant, _ = paired_runs()
    models = figures._models(to_table(quant), to_table(full), True, METRIC)
    accuracy = models["quantized"].correct.mean()
    assert f"accuracy of {accuracy:.3f}" in figures.reliability_chart("t", models, METRIC).finding
    deferral = figures.deferral_chart("t", values)
    assert f"quantized alone {values['accuracy'].quantized:.3f}" in deferral.finding
    assert deferral.svg.count("answered in full precision: accuracy") == 9
