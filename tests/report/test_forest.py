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
    verdict = judge(comparison, MARGINS, METRIC)
    return comparison, verdict, forest_charts(comparison, verdict)


@pytest.fixture(scope="module")
def two():
    return charts(0.0, 0.1)


def rows(panel):
    return panel.spec["data"]["values"]


def test_each_row_has_the_interval_that_its_verdict_was_made_by(two):
    _, verdict, panels = two
    assert list(panels) == ["accuracy", "true_label_prob", "nll", "calibration_error", "kl_divergence"]
    for task, row in zip(verdict.tasks, rows(panels["nll"]), strict=False):
        lost = verdict.tasks[task].margins["nll"]
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((lost.ci_low, lost.ci_high), rel=1e-4)
        assert row["numbers"].startswith(f"{lost.loss:+.4f} [")
    gained = verdict.tasks["task_0"].margins["accuracy"]
    assert rows(panels["accuracy"])[0]["ci_low"] == pytest.approx(-gained.ci_high, rel=1e-4)
    assert [row["outcome"] for row in rows(panels["nll"])] == ["within the margin", "beyond the margin", "no margin"]
    assert {row["outcome"] for row in rows(panels["true_label_prob"])} == {"no margin"}


def test_tasks_that_take_no_part_are_marked_and_the_mean_has_the_verdicts_interval(two):
    comparison, verdict, panels = two
    assert set(verdict.excluded) == {"task_0", "task_1"}  # the right choice is always the first one
    assert [row["task"] for row in rows(panels["nll"])] == [
        "task_0 (takes no part)",
        "task_1 (takes no part)",
        "mean over tasks",
    ]
    assert rows(panels["calibration_error"])[-1]["task"] == "root of the tasks' mean square"
    counted = verdict.model_copy(update={"margins": verdict.tasks["task_1"].margins, "excluded": {}})
    of_nll = rows(forest_charts(comparison, counted)["nll"])
    assert of_nll[0]["task"] == "task_0" and of_nll[2]["outcome"] == "beyond the margin"


def test_a_panel_says_what_it_shows(two):
    _, _, panels = two
    assert panels["nll"].finding.startswith(
        "NLL, nats, margin +0.02: 1 within the margin, 1 beyond the margin. Mean over tasks: +"
    )
    assert " Root of the tasks' mean square: " in panels["calibration_error"].finding
    assert "(task_1) to" in panels["true_label_prob"].finding
    assert all(panel.svg.count("n = 300") == 2 for panel in panels.values())


def test_a_single_task_has_no_mean():
    _, _, panels = charts(0.0)
    assert [row["task"] for row in rows(panels["accuracy"])] == ["task_0 (takes no part)"]


def test_a_texts_kl_divergence_is_elsewhere_and_its_row_says_so(two):
    comparison, verdict, _ = two
    of_text = comparison["task_0"] | {"same_top_token": comparison["task_0"]["kl_divergence"]}
    panel = forest_charts(comparison | {"task_0": of_text}, verdict)["kl_divergence"]
    assert [(row["change"] is None, row["numbers"]) for row in rows(panel)][:1] == [(True, "over the vocabulary: below")]
    assert rows(panel)[1]["change"] is not None and "(task_0" not in panel.finding
