"""sweep.parquet: every number once, the same bytes whatever the order; what is missing stands in it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from bitsure.base.errors import UserError
from bitsure.metrics.metric_names import MACRO
from bitsure.metrics.multiple_testing import holm
from bitsure.report.rounded import shipped_bytes
from bitsure.sweep.report.cell_results import FULL_PRECISION, read_cells
from bitsure.sweep.report.run_columns import COSTS, cell_columns, in_full_precision, series_of
from bitsure.sweep.report.sweep_table import IN_OTHER_WORDS, SCHEMA, build_table, write_table
from tests.builders.sweeps import QUANTIZERS, leave_unfinished, write_plan


def of(table, **wanted):
    """The rows with these values."""
    for name, value in wanted.items():
        table = table.filter(pc.equal(table[name], value))
    return table.to_pylist()


@pytest.fixture(scope="module")
def built(finished):
    return build_table(read_cells(finished))


def test_the_numbers_are_the_cells(finished, built):
    directory = next(finished.glob("*-model1-rtn2"))
    measured, compared = (json.loads((directory / f"{name}.json").read_text()) for name in ("metrics", "comparison"))
    [row] = of(built, model="model1", quantizer="rtn2", task="task_0", metric="true_label_prob")
    one, change = (found["task_0"]["true_label_prob"] for found in (measured, compared))
    assert (row["value"], row["ci_low"], row["n"]) == (one["value"], one["ci_low"], one["n"])
    assert (row["delta"], row["baseline"], row["delta_ci_high"]) == (change["value"], change["baseline"], change["ci_high"])
    assert (row["test"], row["tests"], row["status"]) == ("paired t-test", "primary", "done")
    full = json.loads((directory / "baseline_metrics.json").read_text())["task_0"]
    not_compared = min(full.keys() - compared["task_0"].keys())
    [row] = of(built, model="model1", quantizer="rtn2", task="task_0", metric=not_compared)
    assert row["delta"] is None and row["baseline"] == full[not_compared]["value"]
    [flips] = of(built, model="model1", quantizer="rtn2", task="task_0", metric="flip_rate")
    assert flips["value"] == compared["task_0"]["flip_rate"]["value"] and flips["delta"] is None


def test_full_precision_stands_in_it_once(built):
    rows = of(built, quantizer=FULL_PRECISION, task="task_0", metric="accuracy")
    assert [row["model"] for row in rows] == ["model0", "model1", "model2", "model3"]
    assert rows[0]["bits_per_weight"] == 16 and rows[0]["size_bytes"] == 2_000_000
    assert {row["bits_per_weight_coded"] for row in rows} == {None}  # of what has codes alone
    assert {row["bits_per_weight_coded"] for row in of(built, model="model1", quantizer="rtn2")} == {1.5}


def test_every_row_says_what_its_cell_cost(built):
    costs = ("quantizing_seconds", "quantizing_peak_bytes", "scoring_tokens_per_second", "scoring_peak_bytes")
    [quantized] = {tuple(row[key] for key in costs) for row in of(built, model="model1", quantizer="rtn2")}
    [full] = {tuple(row[key] for key in costs) for row in of(built, model="model1", quantizer=FULL_PRECISION)}
    assert quantized == (2.0, 700_000_000, 900.0, 800_000_000) and full == (None, None, 1000.0, 750_000_000)
    assert {row["packed_tokens_per_second"] for row in built.to_pylist()} == {None}


def test_speed_is_a_quantizers_only_where_its_weights_stay_packed(finished):
    [cell] = [cell for cell in read_cells(finished) if cell.name.endswith("model0-gptq4")]
    packed = replace(cell, config=cell.config | {"scoring": {"dequantize": False}})
    quantized = cell_columns(packed, set())
    assert quantized.packed_tokens_per_second == quantized.scoring_tokens_per_second
    assert in_full_precision(packed, quantized).packed_tokens_per_second == 1000.0


def test_primary_tests_are_adjusted_over_the_whole_sweep(built):
    rows = of(built, tests="primary")
    assert len(rows) == 4 * len(QUANTIZERS) * 2
    assert [row["p_adjusted"] for row in rows] == pytest.approx(holm([row["p_value"] for row in rows]))
    assert all(row["p_adjusted"] >= row["p_value"] for row in of(built, tests="exploratory"))


def test_the_same_cells_give_the_same_bytes_in_any_order(finished, built, tmp_path):
    shuffled = tmp_path / "shuffled"
    for i, directory in enumerate(sorted(finished.glob("*-model*"), reverse=True)):
        shutil.copytree(directory, shuffled / f"{i}-{directory.name}")
    for name, found in (("one", built), ("other", build_table(read_cells(shuffled)))):
        write_table(found, tmp_path / f"{name}.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()
    assert pq.read_schema(tmp_path / "one.parquet").names == [
        name for name in SCHEMA.names if name not in (*COSTS, *IN_OTHER_WORDS)
    ]


def test_a_series_is_a_name_without_its_size():
    names = {"opt-1.3b": "opt", "bloom-7b1": "bloom", "llama-2-7b-chat": "llama-2-chat", "Mixtral-8x7B-v0.1": "Mixtral-v0.1"}
    names |= {"pocket-300k": "pocket", "gpt2": "gpt2", "qwen3-0.6b": "qwen3", "-7b": "-7b"}
    assert {name: series_of(name) for name in names} == names


def test_size_by_hand(finished):
    # 1,000,000 parameters, 2 bytes each: nine tenths at 4.16 bits, the rest as before
    [cell] = [cell for cell in read_cells(finished) if cell.name.endswith("model0-gptq4")]
    assert shipped_bytes(cell.quantization, cell.model) == round(2_000_000 * 0.1 + 1_000_000 * 0.9 * 4.16 / 8)


def test_what_is_not_done_stands_in_it_too(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "half")
    leave_unfinished(folder, "90-other-gptq4", state="killed", error="one\ntwo\nthree\nfour\nfive\nsix\nseven")
    (folder / "0-model0-gptq4" / "metrics.json").write_text('{"task_0": {"accur')
    write_plan(folder, *((path.name, path.name) for path in sorted(folder.glob("*-*"))), ("91-later", "later rtn4"))
    found = read_cells(folder)
    states = {cell.name: cell.state for cell in found if not cell.done}
    assert states == {"0-model0-gptq4": "damaged", "90-other-gptq4": "killed", "later rtn4": "not started"}
    assert [cell.error for cell in found if cell.state == "killed"] == ["one\n…\nthree\nfour\nfive\nsix\nseven"]
    built = build_table(found)
    unfinished = {(row["model"], row["quantizer"], row["status"]) for row in built.to_pylist() if row["status"] != "done"}
    assert {row["method"] for row in of(built, status="not started")} == {None}  # its bits are not known
    assert unfinished == {("model0", "gptq4", "damaged"), ("other", "gptq4", "killed"), ("later", "rtn4", "not started")}
    assert all(row["value"] is None for row in of(built, status="killed"))


def test_a_file_that_does_not_fit_damages_its_own_cell_alone(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "damaged")
    path = folder / "0-model0-gptq4" / "comparison.json"
    comparison = json.loads(path.read_text())
    comparison["task_0"]["accuracy"]["n"] = "many"
    path.write_text(json.dumps(comparison))
    damaged, *others = read_cells(folder)
    assert (
        damaged.state == "damaged" and "comparison.json is no result file of this version: task_0.accuracy.n" in damaged.error
    )
    assert damaged.error.endswith("Run the sweep again, or remove 0-model0-gptq4.") and all(cell.done for cell in others)


CUT = {"emptied": b"", "cut": b'{"task_0": {"accur', "not UTF-8": b"\xff\xfe{}", "deep": b"[" * 100_000, "another type": b"5"}
FILES = ("status.json", "config.yaml", "metrics.json", "baseline_metrics.json", "comparison.json", "quantization.json")


@pytest.mark.parametrize("name", [*FILES, "provenance.json"])
def test_a_damaged_file_is_named_and_the_report_has_all_other_cells(finished, tmp_path, name):
    folder = shutil.copytree(finished, tmp_path / "damaged")
    cells = dict(zip(CUT, sorted(folder.glob("*-*")), strict=False))
    for how, cell in cells.items():
        (cell / name).write_bytes(CUT[how])
    read = read_cells(folder)
    assert {cell.name for cell in read if cell.state == "damaged"} == {cell.name for cell in cells.values()}
    for cell in read:
        assert cell.done or (f"{cell.directory / name}" in cell.error and cell.error.endswith(f"or remove {cell.name}."))
    rows = build_table(read).to_pylist()
    assert len({(row["model"], row["quantizer"]) for row in rows if row["status"] == "done"}) >= len(read) - len(cells)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("calib: {nsamples: many}", "calib.nsamples"),
        ("task: {names: 5}", "task.names"),
        ("quant: {name: [a]}", "quant.name"),
        ("metric: {n_bins: many}", "metric: Value 'many'"),
        ("tracking: {mode: 5}", "tracking.mode"),
        ("model: 5", "config.yaml: model: Input should be"),
    ],
)
def test_settings_of_another_type_damage_their_own_cell_alone(finished, tmp_path, settings, message):
    folder = shutil.copytree(finished, tmp_path / "damaged")
    (folder / "0-model0-gptq4" / "config.yaml").write_text(settings)
    damaged, *others = read_cells(folder)
    assert damaged.state == "damaged" and message in damaged.error and all(cell.done for cell in others)
    assert build_table([damaged, *others])


def test_a_sweep_without_cells_is_refused(tmp_path):
    write_plan(tmp_path)
    with pytest.raises(UserError, match=r"plan\.json names no cells"):
        read_cells(tmp_path)


def test_settings_that_vary_tell_cells_apart(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "settings")
    source = next(folder.glob("*-model0-gptq4"))
    other = shutil.copytree(source, folder / "99-model0-gptq4")
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(
        text.replace("nsamples: 128", "nsamples: 64").replace("num_fewshot: null", "num_fewshot: 5")
    )
    built = build_table(read_cells(folder))
    rows = of(built, model="model0", quantizer="gptq4", task="task_0", metric="accuracy")
    assert {row["setting"] for row in rows} == {
        "calib.nsamples=128 task.num_fewshot=None",
        "calib.nsamples=64 task.num_fewshot=5",
    }
    full = of(built, model="model0", quantizer=FULL_PRECISION, task="task_0", metric="accuracy")
    assert {row["setting"] for row in full} == {"task.num_fewshot=None", "task.num_fewshot=5"}


def changed(folder, number: int, source: str, move: float = 0.0, **settings):
    """One more cell: that of a name with other settings, and its accuracy moved."""
    cell = shutil.copytree(next(folder.glob(f"*-{source}")), folder / f"{number}-{source}")
    config = yaml.safe_load((cell / "config.yaml").read_text())
    for key, value in settings.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    (cell / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = json.loads((cell / "metrics.json").read_text())
    metrics["task_0"]["accuracy"]["value"] += move
    (cell / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.parametrize(
    ("key", "of_full"),
    [
        ("quant.damp_percent", 1),
        ("control.seeds", 1),
        ("calib.path", 1),
        ("compress.codes", 1),
        ("model.revision", 2),
        ("model.path", 2),
    ],
)
def test_cells_that_differ_in_one_setting_are_several_rows(finished, tmp_path, key, of_full):
    folder = tmp_path / "settings"
    for name in ("0-model0-gptq4", "3-model1-gptq4"):
        shutil.copytree(finished / name, folder / name)
    place = key.replace(".", "__")
    config = yaml.safe_load((finished / "0-model0-gptq4" / "config.yaml").read_text())
    empty = {group: config.get(group, {}) for group in ("control", "compress")}
    for path in folder.glob("*/config.yaml"):
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | empty))
    changed(folder, 90, "model0-gptq4", 0.01, **{place: "a"})
    changed(folder, 91, "model0-gptq4", 0.02, **{place: "b"})
    built = build_table(read_cells(folder))
    rows = of(built, model="model0", quantizer="gptq4", task="task_0", metric="accuracy")
    assert {row["setting"] for row in rows} == {"", f"{key}=a", f"{key}=b"} and len(rows) == 3
    assert len({row["value"] for row in rows}) == 3
    full = {row["setting"] for row in of(built, model="model0", quantizer=FULL_PRECISION)}
    assert full == ({""} if of_full == 1 else {"", f"{key}=a", f"{key}=b"})


def test_what_follows_from_a_name_is_no_setting_of_its_own(finished, tmp_path):
    folder = tmp_path / "settings"
    shutil.copytree(finished / "0-model0-gptq4", folder / "0-model0-gptq4")
    changed(folder, 90, "model0-gptq4", 0.01, calib__name="pile", calib__repo="pile-10k")
    found = {row["setting"] for row in build_table(read_cells(folder)).to_pylist() if row["quantizer"] == "gptq4"}
    assert found == {"calib.name=c4", "calib.name=pile"}


def test_a_mean_over_other_tasks_is_another_number(finished, tmp_path):
    folder = tmp_path / "tasks"
    shutil.copytree(finished / "0-model0-gptq4", folder / "0-model0-gptq4")
    changed(folder, 90, "model0-gptq4", task__names=["task_0", "task_1"])
    changed(folder, 91, "model0-gptq4", task__names=["task_0", "task_2"])
    shutil.rmtree(folder / "0-model0-gptq4")
    built = build_table(read_cells(folder))
    single = of(built, quantizer="gptq4", task="task_0", metric="accuracy")
    assert [row["setting"] for row in single] == [""]  # the same number in both
    means = of(built, quantizer="gptq4", task=MACRO, metric="accuracy")
    assert [row["setting"] for row in means] == ["task.names=task_0,task_1", "task.names=task_0,task_2"]


def test_two_values_of_one_number_are_refused(finished, tmp_path):
    folder = tmp_path / "twice"
    shutil.copytree(finished / "0-model0-gptq4", folder / "0-model0-gptq4")
    changed(folder, 90, "model0-gptq4", 0.01)
    with pytest.raises(UserError, match=r"1 numbers .* accuracy of task_0 of model0 gptq4: .*\(model\.name="):
        build_table(read_cells(folder))


def test_a_directory_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"neither a run's directory nor a sweep's, and a sweep's is needed: it holds no rec"):
        read_cells(tmp_path)
