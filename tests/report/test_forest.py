"""The forest plot: every task's difference against the margin."""

from __future__ import annotations

import pytest

from bitsure.comparison import compare, judge
from bitsure.report.forest import forest_charts
from tests.builders.answers import paired_runs
from tests.builders.settings import MARGINS, METRIC


def charts(*shifts):
    both = [paired_runs(300, shift=shift, task=f"task_{k}", seed=k) for k, shift in enumerate(shifts)]
    full, quant = ([row for one in both for row in one[side]] for side in (0, 1))
    comparison = compare(full, quant, METRIC)
    return comparison, forest_charts(comparison, judge(comparison, MARGINS, METRIC))


@pytest.fixture(scope="module")
def two():
    return charts(0.0, 0.1)


def test_each_row_has_its_number_interval_and_outcome(two):
    comparison, panels = two
    assert list(panels)[:3] == ["accuracy", "true_label_prob", "nll"] and list(panels)[-1] == "kl_divergence"
    rows = panels["nll"].spec["data"]["values"]
    lost = comparison["task_1"]["nll"]
    assert [row["task"] for row in rows] == ["task_0", "task_1", "mean over tasks"]
    assert rows[1]["low"] == pytest.approx(lost.ci_low, rel=1e-4) and rows[1]["numbers"].startswith(f"{lost.value:+.4f} [")
    assert [row["outcome"] for row in rows[:2]] == ["within the margin", "beyond the margin"]
    assert {row["outcome"] for row in panels["true_label_prob"].spec["data"]["values"]} == {"no margin"}


def test_a_panel_says_what_it_shows(two):
    _, panels = two
    assert panels["nll"].finding == "NLL, nats, margin +0.02: 1 within the margin, 1 beyond the margin."
    assert "(task_1) to" in panels["true_label_prob"].finding
    assert all(panel.svg.count("n = 300") == 2 for panel in panels.values())


def test_a_single_task_has_no_mean(two):
    _, panels = charts(0.0)
    assert [row["task"] for row in panels["accuracy"].spec["data"]["values"]] == ["task_0"]
