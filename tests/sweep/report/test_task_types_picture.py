"""What each bit costs by type of task: a line a type, a panel for what is rounded, and the knee in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitsure.metrics.metric_names import BASELINE_ABOVE_GUESSING, ECE, MACRO
from bitsure.results.measurement import Difference, Measurement
from bitsure.results.quantization import RoundedStates
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.study_row import over_tasks, study_rows
from bitsure.sweep.report.sweep_table import build_table
from bitsure.sweep.report.task_types_picture import RoundedBits, knee, task_types_picture
from tests.builders.result_files import model_origin, quantization
from tests.builders.study_rows import study_row

KV = RoundedStates(
    bits=4,
    group_size=-1,
    symmetric=True,
    format="int",
    errors={"b.keys": 0.1},
    off_grid=0.0,
    always_zero=[],
    bits_per_value=4.25,
)


def cell(quantizer: str, option: str, change: float, tasks: tuple[str, ...], **rounded) -> CellResult:
    """A finished cell whose accuracy changed on each of some tasks."""
    now = Measurement(value=0.8 + change, ci_low=0.7, ci_high=0.9, n=100)
    ends = {"ci_low": change - 0.005, "ci_high": change + 0.005}
    moved = Difference(value=change, n=100, baseline=0.8, quantized=0.8 + change, **ends)
    names = [*tasks, MACRO] if len(tasks) > 1 else tasks
    return CellResult(
        directory=Path(quantizer),
        name=quantizer,
        path=quantizer,
        started=None,
        model_name="m",
        label=quantizer,
        state="done",
        error=None,
        config={"quant": {"name": quantizer, "bits": int(quantizer[-1])}, "task": {"name": option, "names": list(tasks)}},
        model=model_origin(),
        quantization=quantization(quantizer=quantizer, bits_per_weight=float(quantizer[-1]), **rounded),
        metrics={task: {"accuracy": now, ECE: now} for task in names},
        comparison={task: {"accuracy": moved} for task in names},
    )


def picture(options=("language", "trust")):
    """The picture of two types of tasks, on which 2 bits of weights lose answers, and 2 bits of keys and values none."""
    cells = []
    for option, tasks in zip(options, (("t",), ("t", "t@typos", "u")), strict=True):
        cells += [cell("rtn4", option, 0.0, tasks), cell("rtn2", option, -0.2, tasks)]
        for bits in (4, 2):
            states = KV.model_copy(update={"bits": bits, "bits_per_value": bits + 0.25})
            kept = {"keys_and_values": states, "modules_quantized": [], "relative_error": 0.0}
            cells.append(cell(f"kv{bits}", option, 0.0, tasks, **kept))
    return task_types_picture(cells, study_rows(build_table(cells), {"accuracy"}, 0.01), 0.02)


def test_each_type_has_a_line_and_each_part_that_is_rounded_a_panel():
    drawn = picture()
    assert drawn is not None and [key.label for key in drawn.keys] == ["language", "trust"]
    weights, states = sorted(drawn.panels, key=lambda chart: "keys" in chart.finding)
    assert weights.finding.startswith("m, weights: language: within the margin down to rtn4, surely beyond at rtn2")
    assert "m, keys and values: language: within the margin down to kv2" in states.finding
    assert [sorted(point["x"] for point in series.rows) for series in states.series] == [[2, 4], [2, 4]]


def guessing(answered: CellResult, *tasks: str) -> CellResult:
    """The same cell, with tasks that full precision guesses and on which nothing changes."""
    above = Difference(value=0.0, n=100, standard_error=0.05, ci_low=None, ci_high=None)
    unchanged = Difference(value=0.0, n=100, baseline=0.5, quantized=0.5, ci_low=-0.005, ci_high=0.005)
    guessed = {task: {"accuracy": unchanged, BASELINE_ABOVE_GUESSING: above} for task in tasks}
    return replace(answered, comparison=answered.comparison | guessed)


def test_the_loss_of_one_task_is_not_thinned_by_tasks_that_full_precision_guesses():
    guessed = ("x", "y", "z")
    cells = [guessing(cell(f"rtn{bits}", "a", -0.05, ("t", *guessed)), *guessed) for bits in (4, 2)]
    cells += [cell("rtn4", "b", 0.0, ("u", "v")), cell("rtn2", "b", 0.0, ("u", "v"))]
    drawn = task_types_picture(cells, study_rows(build_table(cells), {"accuracy"}, 0.01), 0.02)
    assert "a: surely within the margin at no width, surely beyond at rtn4; b: within the margin down to rtn2" in drawn.finding
    assert "Without tasks on which full precision is not above guessing: x of m, y of m, z of m." in drawn.caption
    [of_b] = [row for row in drawn.rows if row.mean_over == "u, v" and row.quantizer_label == "rtn2"]
    assert (of_b.delta, of_b.delta_ci_low, of_b.n) == (0.0, pytest.approx(-0.005 / 2**0.5), 2)


def test_a_type_whose_tasks_another_type_shares_in_other_conditions_has_its_own_numbers():
    cells = []
    for option, shots, change in (("a", 0, 0.0), ("b", 5, -0.2)):
        cells += [cell(quantizer, option, change, ("t",)) for quantizer in ("rtn4", "rtn2")]
        for asked in cells[-2:]:
            asked.config["task"]["num_fewshot"] = shots
    drawn = task_types_picture(cells, study_rows(build_table(cells), {"accuracy"}, 0.01), 0.02)
    assert "a: within the margin down to rtn2; b: surely within the margin at no width" in drawn.finding


def test_a_type_that_full_precision_guesses_has_no_knee():
    cells = [guessing(cell(quantizer, "a", 0.0, ("t",)), "t") for quantizer in ("rtn4", "rtn2")]
    cells += [cell("rtn4", "b", 0.0, ("u",)), cell("rtn2", "b", 0.0, ("u",))]
    drawn = task_types_picture(cells, study_rows(build_table(cells), {"accuracy"}, 0.01), 0.02)
    assert "a: full precision is not above guessing; b: within the margin down to rtn2" in drawn.finding


def test_a_mean_names_no_task_of_continuations_whose_own_rows_stay_beside_it():
    cells = [cell("rtn4", "a", 0.0, ("t", "u", "lambada")), cell("rtn4", "b", 0.0, ("v",))]
    del cells[0].metrics["lambada"][ECE]
    rows = over_tasks(study_rows(build_table(cells), {"accuracy"}, 0.01))
    assert {row.mean_over for row in rows if row.task == MACRO} == {"t, u"}
    assert {row.task for row in rows} == {MACRO, "lambada", "v"}


def test_types_of_one_option_are_told_apart_by_their_tasks():
    drawn = picture(("own", "own"))
    assert drawn is not None and [key.label for key in drawn.keys] == ["t", "t, u"]


def test_the_knee_ends_at_the_first_width_that_may_lose_more_than_the_margin():
    rounded = {f"w{bits}": RoundedBits("weights", bits) for bits in (2, 3, 4, 8)}

    def words(**ends: tuple[float, float]) -> str:
        rows = [study_row(quantizer_label=label, delta_ci_low=low, delta_ci_high=high) for label, (low, high) in ends.items()]
        return knee(rows, rounded, 0.01)

    sure, open_, lost = (-0.005, 0.005), (-0.02, 0.005), (-0.2, -0.1)
    assert words(w2=lost, w3=open_, w4=sure, w8=sure) == "within the margin down to w4, surely beyond at w2"
    assert words(w4=sure, w8=open_) == "surely within the margin at no width"
    assert words(w4=sure, w3=open_, w2=sure) == "within the margin down to w4"
