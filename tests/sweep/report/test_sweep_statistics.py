"""Across models and draws, from a sweep's rows."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml

from benchmarks.sweep import METRIC
from bitsure.comparison.changes import AnswerChanges, read_changes, write_changes
from bitsure.metrics.across import heterogeneity, over_draws
from bitsure.sweep.report.cell_changes import CellChanges
from bitsure.sweep.report.cell_results import FULL_PRECISION, read_cells
from bitsure.sweep.report.contrasts import bits_apart, build_contrasts
from bitsure.sweep.report.sweep_statistics import means_over_draws, model_spreads, over_calibration, over_training
from tests.builders.study_rows import study_row as row


def test_calibration_seeds_become_one_row_with_a_wider_interval():
    deltas = [-0.1, -0.2, -0.15]
    [mean] = over_calibration([row(seed=i, delta=d) for i, d in enumerate(deltas)], 0.95)
    expected = over_draws(deltas, [0.02] * 3, 0.95)
    assert (mean.delta, mean.delta_ci_low, mean.delta_ci_high) == (expected.value, expected.ci_low, expected.ci_high)
    assert mean.draws == {"calibration seeds": 3} and mean.calib_seed is None
    assert row().star == "*" and mean.star == ""  # a test of one seed is no test of their mean
    [shown] = means_over_draws([mean], over_training([mean], 0.95))
    assert shown.draws_label == "3 calibration seeds"
    assert shown.delta_between_draws == pytest.approx(np.std(deltas, ddof=1))


def test_training_seeds_are_drawn_around_calibration_seeds():
    rows = [
        row(model=f"m{t}", series="m", training_seed=t, seed=c, delta=-0.1 - t / 10 - c / 100) for t in (0, 1) for c in (0, 1)
    ]
    [mean] = over_training(over_calibration(rows, 0.95), 0.95)
    assert mean.delta == pytest.approx(-0.155) and mean.draws == {"calibration seeds": 2, "training seeds": 2}
    assert mean.single_model == ""


def test_rows_whose_seeds_are_not_told_apart_are_left_alone():
    rows = [row(model=m, series="s", seed=None) for m in ("a", "b")]
    assert over_training(rows, 0.95) == rows


def test_heterogeneity_is_over_models_and_adjusted():
    rows = [row(model=m, delta=d, metric=name) for name in ("accuracy", "nll") for m, d in (("a", -0.1), ("b", -0.3))]
    spreads = model_spreads([*rows, row(model="full", quantizer=FULL_PRECISION, delta=None)])
    expected = heterogeneity([-0.1, -0.3], [0.02, 0.02])
    assert [spread.metric for spread in spreads] == ["accuracy", "nll"]
    assert all((spread.q, spread.models, spread.p_adjusted) == (expected.q, 2, expected.p_value) for spread in spreads)


def only(contrasts, task, metric, **names):
    """The one contrast of a task and metric between runs with these names: model, quantizer, other_model, other_quantizer."""
    [contrast] = [
        contrast
        for contrast in contrasts
        if (contrast.task, contrast.metric) == (task, metric)
        and all(
            getattr(contrast.second if key.startswith("other_") else contrast.first, key.removeprefix("other_")) == name
            for key, name in names.items()
        )
    ]
    return contrast


def test_contrasts_are_those_of_the_changes(finished):
    found = build_contrasts(read_cells(finished), METRIC, CellChanges())
    assert found.unreadable == [] and len(found.models) == 6 * 3 * 2 * 2  # pairs, quantizers, tasks, metrics
    one = only(found.models, "task_1", "true_label_prob", model="model0", other_model="model3", quantizer="rtn4")
    first, second = (
        read_changes(next(finished.glob(f"*-{name}-rtn4")) / "changes.parquet", "task_1").values["true_label_prob"]
        for name in ("model0", "model3")
    )
    assert one.value == pytest.approx((second - first).mean()) and one.n == 60
    assert one.standard_error == pytest.approx((second - first).std() / 60**0.5, rel=0.15)
    assert one.ci_low < one.value < one.ci_high and one.p_adjusted >= one.p_value


def test_quantizers_are_contrasted_on_one_model(finished):
    found = build_contrasts(read_cells(finished), METRIC, CellChanges()).quantizers
    assert len(found) == 2 * 4 * 2 * 2  # pairs, models, tasks, metrics
    assert {(one.first.quantizer, one.second.quantizer) for one in found} == {("gptq4", "rtn4"), ("rtn2", "rtn4")}
    apart = [bits_apart(one.first, one.second) for one in found]
    assert apart == sorted(apart) and apart[0] < 0.1 < 0.9 < apart[-1]
    one = only(found, "task_0", "accuracy", model="model2", quantizer="gptq4", other_quantizer="rtn4")
    first, second = (
        read_changes(next(finished.glob(f"*-model2-{name}")) / "changes.parquet", "task_0").values["accuracy"]
        for name in ("gptq4", "rtn4")
    )
    assert one.value == pytest.approx((second - first).mean()) and one.n == 60
    assert one.p_adjusted >= one.p_value and one.calib_seed == 0


def test_settings_of_one_quantizer_are_contrasted_and_others_too(finished, tmp_path):
    folder = tmp_path / "sweep"
    for name in ("0-model0-gptq4", "1-model0-rtn4"):
        shutil.copytree(finished / name, folder / name)
    shutil.copytree(folder / "0-model0-gptq4", folder / "2-damped")
    for name, damp in (("0-model0-gptq4", 0.01), ("2-damped", 0.1)):
        config = yaml.safe_load((folder / name / "config.yaml").read_text())
        config["quant"]["damp_percent"] = damp
        (folder / name / "config.yaml").write_text(yaml.safe_dump(config))
    found = build_contrasts(read_cells(folder), METRIC, CellChanges()).quantizers
    low, high = ("gptq4", "quant.damp_percent=0.01"), ("gptq4", "quant.damp_percent=0.1")
    pairs = {tuple((run.quantizer, run.setting) for run in (one.first, one.second)) for one in found}
    assert pairs == {(low, high), (low, ("rtn4", "")), (high, ("rtn4", ""))}


def test_contrasts_under_several_calibration_seeds_are_their_mean(finished, tmp_path):
    folder = tmp_path / "sweep"
    for seed in range(3):
        for name in ("gptq4", "rtn4"):
            cell = shutil.copytree(finished / f"{name == 'rtn4':d}-model0-{name}", folder / f"{seed}-{name}")
            config = yaml.safe_load((cell / "config.yaml").read_text())
            config["calib"]["seed"] = seed
            (cell / "config.yaml").write_text(yaml.safe_dump(config))
            if name == "gptq4":
                path = cell / "changes.parquet"
                moved = {task: read_changes(path, task) for task in ("task_0", "task_1")}
                for change in moved.values():
                    change.values["accuracy"] = change.values["accuracy"] + (-0.1, 0.0, 0.25)[seed]
                write_changes(path, moved)
    found = build_contrasts(read_cells(folder), METRIC, CellChanges()).quantizers
    assert len(found) == 2 * 2 and all((one.draws, one.calib_seed, one.p_value) == (3, None, None) for one in found)
    one = only(found, "task_0", "accuracy")
    names = {"model": one.first.model, "quantizer": one.first.quantizer, "other_quantizer": one.second.quantizer}
    single = only(build_contrasts(read_cells(finished), METRIC, CellChanges()).quantizers, "task_0", "accuracy", **names)
    expected = over_draws([single.value - shift for shift in (-0.1, 0.0, 0.25)], [single.standard_error] * 3, 0.95)
    assert (one.value, one.ci_low) == (pytest.approx(expected.value), pytest.approx(expected.ci_low))


def test_a_model_with_other_questions_is_contrasted_on_those_in_common(finished, tmp_path):
    folder = tmp_path / "sweep"
    for name in ("0-model0-gptq4", "3-model1-gptq4", "6-model2-gptq4"):
        shutil.copytree(finished / name, folder / name)
    path = folder / "6-model2-gptq4" / "changes.parquet"
    whole = {task: read_changes(path, task) for task in ("task_0", "task_1")}
    part = {
        task: AnswerChanges(one.question[:25], None, {k: v[:25] for k, v in one.values.items()}) for task, one in whole.items()
    }
    write_changes(path, part)
    (folder / "3-model1-gptq4" / "changes.parquet").write_bytes(b"truncated")
    found = build_contrasts(read_cells(folder), METRIC, CellChanges())
    assert found.unreadable == ["3-model1-gptq4"] and found.quantizers == []
    assert {(one.first.model, one.second.model, one.n) for one in found.models} == {("model0", "model2", 25)}
