"""The examples of docs/extending.md run as they stand there, from composing to the report of a sweep."""

from __future__ import annotations

import importlib
import json
import shlex
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml

from tests.builders.documents import code_blocks

QUANTIZER, CODES, METRICS = CODE = code_blocks("extending.md", "python")
SETTINGS = code_blocks("extending.md", "yaml")
TASK, QUESTIONS = SETTINGS[-1], code_blocks("extending.md", "json")[0]
(ONE_RUN, SWEEP), (CODES_RUN,), (METRIC_RUN, METRIC_SWEEP), (REPORT,), (TASK_RUN,) = (
    commands.splitlines() for commands in code_blocks("extending.md", "bash")
)
QUICK = ["model=pocket-300k", "metric.resamples=100", "tracking.mode=disabled"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the examples' files, each named by its first line; the task's YAML names the file of its questions."""
    place = tmp_path_factory.mktemp("own")
    for block in (*CODE, *SETTINGS):
        file = place / block.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block)
    (place / "my_tasks" / yaml.safe_load(TASK)["dataset_kwargs"]["data_files"]["test"]).write_text(QUESTIONS)
    return place


@pytest.fixture(scope="module")
def run(folder, commands):
    """Return what runs a command of the page, with further settings."""

    def run(command: str, *more: str) -> None:
        python, script, *given = shlex.split(command)
        assert (python, script) == ("python", "main.py")
        done = commands.run(*given, *QUICK, *more, cwd=folder, environment={"BITSURE_STORE": str(folder / "store")})
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def finished(folder, run):
    """The directory of the first command's run."""
    run(ONE_RUN, f"hydra.run.dir={folder / 'one'}")
    return folder / "one"


def entries(folder, kind: str) -> set[str]:
    """The entries of a kind in the store."""
    return {path.parent.name for path in (folder / "store" / kind).rglob("manifest.json")}


@pytest.mark.parametrize("example", [QUANTIZER + SETTINGS[0], CODES + SETTINGS[1], METRICS + SETTINGS[2], TASK + QUESTIONS])
def test_an_example_is_at_most_thirty_lines(example):
    assert len([line for line in example.splitlines() if line.strip()]) <= 30


def test_a_quantizer_of_ones_own_is_proven_scored_compared_and_reported(finished):
    proof = json.loads((finished / "quantization.json").read_text())
    assert proof["quantizer"] == "mine4-0.999"
    assert 4 < proof["bits_per_weight"] < 4.5 and 0 < proof["relative_error"] < 0.3
    assert len(proof["modules_quantized"]) == len(proof["layers"]) > 0
    compared = json.loads((finished / "comparison.json").read_text())
    assert compared["pocket_recall"]["accuracy"]["n"] == 20
    assert "mine4-0.999" in (finished / "report.html").read_text()
    made_from = json.loads((finished / "provenance.json").read_text())["weights"]["quant"]
    assert made_from["method"] == "my_quantizer.Mine" and (made_from["bits"], made_from["kept"]) == (4, 0.999)


@pytest.mark.parametrize(("module", "name"), [("my_quantizer", "Mine"), ("my_codes", "Grouped")])
def test_a_quantizer_of_ones_own_rounds_a_layer(folder, monkeypatch, module, name):
    monkeypatch.syspath_prepend(folder)
    weight, written = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), {}
    quantizer = getattr(importlib.import_module(module), name)(bits=4)
    quantizer.quantize(SimpleNamespace(layers=lambda: {"layer": weight}, write=written.update))
    error = (written["layer"].dequantize() - weight).norm() / weight.norm()
    assert written["layer"].tensors() and 0 < error < 0.2


def test_codes_of_ones_own_are_stored_counted_and_compressed(folder, run):
    run(CODES_RUN, f"hydra.run.dir={folder / 'codes'}", "compress.measure=true", "compress.codes=4096")
    proof = results(folder / "codes", "quantization")
    assert proof["quantizer"] == "grouped4-g32" and proof["bits_per_weight"] == pytest.approx(4 + (16 + 4) / 32)
    assert proof["bits_per_weight_coded"] < proof["bits_per_weight"] and 0 < proof["code_entropy"] < 4
    assert results(folder / "codes", "compressibility")["weights"]["bits"] == 4


@pytest.mark.slow
def test_the_same_command_takes_its_results_from_the_store(folder, finished, run):
    before = entries(folder, "weights"), entries(folder, "records")
    run(ONE_RUN, f"hydra.run.dir={folder / 'again'}")
    assert (entries(folder, "weights"), entries(folder, "records")) == before
    for name in ("comparison.json", "metrics.json"):
        assert (folder / "again" / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_its_settings_are_swept(folder, finished, run):
    before = entries(folder, "weights")
    run(SWEEP, f"hydra.sweep.dir={folder / 'sweep'}")
    assert len(entries(folder, "weights") - before) == 1  # the cell with 4 bits is in the store
    table = pd.read_parquet(folder / "sweep" / "sweep.parquet")
    assert set(table.quantizer) >= {"mine4-0.999", "mine3-0.999"} and set(table.status) == {"done"}
    assert "mine3-0.999" in (folder / "sweep" / "sweep.html").read_text()


def test_another_text_of_the_method_is_another_key(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    import my_quantizer

    quantizer = my_quantizer.Mine(bits=4)
    before = quantizer.identity(None)
    (folder / "my_quantizer.py").write_text(QUANTIZER + "\n# edited\n")
    after = quantizer.identity(None)
    (folder / "my_quantizer.py").write_text(QUANTIZER)
    assert before.pop("code") != after.pop("code") and before == after


def results(run_dir, name: str) -> dict:
    return json.loads((run_dir / f"{name}.json").read_text())


def test_metrics_of_ones_own_are_measured_compared_and_reported(folder, run):
    run_dir = folder / "metric"
    run(METRIC_RUN, f"hydra.run.dir={run_dir}")
    for name in ("metrics", "baseline_metrics", "comparison"):
        recall = results(run_dir, name)["pocket_recall"]
        assert recall["sure_and_wrong"]["n"] == 100 and recall["accuracy_if_sure"]["value"] is not None
    assert results(run_dir, "metrics")["pocket_recall"]["accuracy_if_sure"]["n"] < 100
    assert recall["accuracy_if_sure"]["n_quantized"] == results(run_dir, "metrics")["pocket_recall"]["accuracy_if_sure"]["n"]
    assert recall["accuracy_if_sure"]["family"] == "exploratory" and 0 <= recall["accuracy_if_sure"]["p_adjusted"] <= 1
    assert 'title="sure_and_wrong">sure and wrong<' in (run_dir / "report.html").read_text()


@pytest.mark.slow
def test_metrics_of_ones_own_are_in_a_sweeps_table(folder, run):
    run(METRIC_SWEEP, f"hydra.sweep.dir={folder / 'metric_sweep'}")
    table = pd.read_parquet(folder / "metric_sweep" / "sweep.parquet")
    rows = table[table.metric == "sure_and_wrong"]
    assert set(rows.quantizer) == {"none", "rtn3", "rtn2"} and rows.value.notna().all()


def test_a_task_of_ones_own_is_scored_compared_and_reported(folder, run):
    run_dir = folder / "task"
    run(TASK_RUN, f"hydra.run.dir={run_dir}")
    assert len(pd.read_parquet(run_dir / "records.parquet")) == len(QUESTIONS.splitlines())
    for name in ("metrics", "comparison"):
        accuracy = results(run_dir, name)["capitals"]["accuracy"]
        assert (accuracy["n"], accuracy["n_clusters"]) == (6, 3)
    assert (run_dir / "figures" / "reliability_capitals.png").is_file() and "capitals" in (run_dir / "report.html").read_text()
    assert results(run_dir, "provenance")["own_tasks"]
