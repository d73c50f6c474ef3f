"""Across models and draws, from a sweep's rows."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml

from benchmarks.sweep import METRIC
from bitsure.comparison import changes
from bitsure.comparison.changes import Changes
from bitsure.metrics.across import heterogeneity, over_draws
from bitsure.sweep.report import cell_results as cells
from bitsure.sweep.report import sweep_statistics as statistics
from bitsure.sweep.report import sweep_table as table
from bitsure.sweep.report.contrasts import contrasts
from bitsure.sweep.report.labels import star


def row(model="m", seed=0, value=0.5, delta=-0.1, **changed):
    fields = {"series": model, "parameters": 10, "model": model, "training_seed": None, "quantizer": "gptq4", "method": "gptq"}
    fields |= {"setting": "", "calib_data": "c4", "calib_nsamples": 128, "calib_seqlen": 2048, "calib_seed": seed}
    fields |= {"task": "t", "metric": "accuracy", "value": value, "standard_error": 0.01, "ci_low": value, "ci_high": value}
    fields |= {"tests": "primary", "p_adjusted": 0.0, "alpha": 0.01}
    fields |= {"delta": delta, "delta_standard_error": 0.02, "delta_ci_low": delta, "delta_ci_high": delta}
    return fields | changed


def test_calibration_seeds_become_one_row_with_a_wider_interval():
    deltas = [-0.1, -0.2, -0.15]
    [one] = statistics.over_calibration([row(seed=i, delta=d) for i, d in enumerate(deltas)], 0.95)
    mean = over_draws(deltas, [0.02] * 3, 0.95)
    assert (one["delta"], one["delta_ci_low"], one["delta_ci_high"]) == (mean.value, mean.ci_low, mean.ci_high)
    assert one["draws"] == {"calibration seeds": 3} and one["calib_seed"] is None
    assert star(row()) == "*" and star(one) == ""  # a test of one seed is none of their mean
    [said] = statistics.draws([one], statistics.over_training([one], 0.95))
    assert said["draws"] == "3 calibration seeds" and said["between_draws"] == pytest.approx(np.std(deltas, ddof=1))


def test_training_seeds_are_drawn_around_calibration_seeds():
    rows = [
        row(model=f"m{t}", series="m", training_seed=t, seed=c, delta=-0.1 - t / 10 - c / 100) for t in (0, 1) for c in (0, 1)
    ]
    [one] = statistics.over_training(statistics.over_calibration(rows, 0.95), 0.95)
    assert one["delta"] == pytest.approx(-0.155) and one["draws"] == {"calibration seeds": 2, "training seeds": 2}


def test_rows_whose_seeds_are_not_told_apart_are_left_alone():
    rows = [row(model=m, series="s", seed=None) for m in ("a", "b")]
    assert statistics.over_training(rows, 0.95) == rows


def test_heterogeneity_is_over_models_and_adjusted():
    rows = [row(model=m, delta=d, metric=name) for name in ("accuracy", "nll") for m, d in (("a", -0.1), ("b", -0.3))]
    found = statistics.heterogeneities([*rows, row(model="full", quantizer=table.FULL, delta=None)])
    expected = heterogeneity([-0.1, -0.3], [0.02, 0.02])
    assert [one["metric"] for one in found] == ["accuracy", "nll"]
    assert all((one["q"], one["models"]) == (expected.q, 2) and one["p_adjusted"] == expected.p_value for one in found)


def only(found, **columns):
    """The one row that has these values."""
    [one] = [one for one in found if all(one[key] == value for key, value in columns.items())]
    return one


def test_contrasts_are_those_of_the_changes(finished):
    kinds, unread = contrasts(cells.read(finished), METRIC)
    found = kinds["contrasts"]
    assert unread == [] and len(found) == 6 * 3 * 2 * 2  # pairs, quantizers, tasks, metrics
    one = only(found, model="model0", other="model3", quantizer="rtn4", task="task_1", metric="true_label_prob")
    first, second = (
        changes.read(next(finished.glob(f"*-{name}-rtn4")) / "changes.parquet", "task_1").values["true_label_prob"]
        for name in ("model0", "model3")
    )
    assert one["value"] == pytest.approx((second - first).mean()) and one["n"] == 60
    assert one["standard_error"] == pytest.approx((second - first).std() / 60**0.5, rel=0.15)
    assert one["ci_low"] < one["value"] < one["ci_high"] and one["p_adjusted"] >= one["p_value"]


def test_quantizers_are_set_against_each_other_on_one_model(finished):
    kinds, _ = contrasts(cells.read(finished), METRIC)
    found = kinds["contrasts_of_quantizers"]
    assert len(found) == 2 * 4 * 2 * 2  # pairs, models, tasks, metrics
    assert {(one["quantizer"], one["other"]) for one in found} == {("gptq4", "rtn4"), ("rtn2", "rtn4")}
    apart = [abs(one["bits_per_weight"] - one["other_bits_per_weight"]) for one in found]
    assert apart == sorted(apart) and apart[0] < 0.1 < 0.9 < apart[-1]
    one = only(found, model="model2", quantizer="gptq4", other="rtn4", task="task_0", metric="accuracy")
    first, second = (
        changes.read(next(finished.glob(f"*-model2-{name}")) / "changes.parquet", "task_0").values["accuracy"]
        for name in ("gptq4", "rtn4")
    )
    assert one["value"] == pytest.approx((second - first).mean()) and one["n"] == 60
    assert one["p_adjusted"] >= one["p_value"] and one["calib_seed"] == 0


def test_settings_of_one_quantizer_are_set_against_each_other_and_others_too(finished, tmp_path):
    folder = tmp_path / "sweep"
    for name in ("0-model0-gptq4", "1-model0-rtn4"):
        shutil.copytree(finished / name, folder / name)
    shutil.copytree(folder / "0-model0-gptq4", folder / "2-damped")
    for name, damp in (("0-model0-gptq4", 0.01), ("2-damped", 0.1)):
        config = yaml.safe_load((folder / name / "config.yaml").read_text())
        config["quant"]["damp_percent"] = damp
        (folder / name / "config.yaml").write_text(yaml.safe_dump(config))
    found = contrasts(cells.read(folder), METRIC)[0]["contrasts_of_quantizers"]
    pairs = {(one["quantizer"], one["setting"], one["other"], one["other_setting"]) for one in found}
    low, high = ("gptq4", "quant.damp_percent=0.01"), ("gptq4", "quant.damp_percent=0.1")
    assert pairs == {(*low, *high), (*low, "rtn4", ""), (*high, "rtn4", "")}


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
                moved = {task: changes.read(path, task) for task in ("task_0", "task_1")}
                for one in moved.values():
                    one.values["accuracy"] = one.values["accuracy"] + (-0.1, 0.0, 0.25)[seed]
                changes.write(path, moved)
    found = contrasts(cells.read(folder), METRIC)[0]["contrasts_of_quantizers"]
    assert len(found) == 2 * 2 and all((one["draws"], one["calib_seed"], one["p_value"]) == (3, None, None) for one in found)
    one = only(found, task="task_0", metric="accuracy")
    single = contrasts(cells.read(finished), METRIC)[0]["contrasts_of_quantizers"]
    alone = only(single, **{key: one[key] for key in ("model", "quantizer", "other", "task", "metric")})
    expected = over_draws([alone["value"] - shift for shift in (-0.1, 0.0, 0.25)], [alone["standard_error"]] * 3, 0.95)
    assert (one["value"], one["ci_low"]) == (pytest.approx(expected.value), pytest.approx(expected.ci_low))


def test_a_model_with_other_questions_is_contrasted_on_those_in_common(finished, tmp_path):
    folder = tmp_path / "sweep"
    for name in ("0-model0-gptq4", "3-model1-gptq4", "6-model2-gptq4"):
        shutil.copytree(finished / name, folder / name)
    path = folder / "6-model2-gptq4" / "changes.parquet"
    part = {task: changes.read(path, task) for task in ("task_0", "task_1")}
    part = {task: Changes(one.question[:25], None, {k: v[:25] for k, v in one.values.items()}) for task, one in part.items()}
    changes.write(path, part)
    (folder / "3-model1-gptq4" / "changes.parquet").write_bytes(b"cut short")
    found, unread = contrasts(cells.read(folder), METRIC)
    assert unread == ["3-model1-gptq4"] and found["contrasts_of_quantizers"] == []
    assert {(one["model"], one["other"], one["n"]) for one in found["contrasts"]} == {("model0", "model2", 25)}
