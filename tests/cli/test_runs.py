"""The command line as a user has it: real processes, real files."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from bitsure.base.files import hash_file
from bitsure.base.store import Store
from bitsure.records.parquet import read_records
from bitsure.results.costs import WorkCosts
from tests.builders.marks import SHARED, needs_shared
from tests.builders.stopped_runs import MOST, PAUSE_AMID_SLOW, check_status, python_path, wait_until
from tests.builders.written_tasks import write_task

NOTHING_HEAVY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "lm_eval", "datasets", "wandb", "matplotlib", "scipy"):
            raise AssertionError(name + " is imported")
sys.meta_path.insert(0, Refuse())
"""
NO_MODEL = """
from transformers import PreTrainedModel
def no(*given, **settings): raise AssertionError("a model is loaded")
PreTrainedModel.from_pretrained = no
"""


@pytest.mark.parametrize(("arguments", "shown"), [(["--help"], "gptq4"), (["--cfg", "job"], "bits: 4")])
def test_help_and_config_load_nothing_heavy(bitsure, tmp_path, arguments, shown):
    (tmp_path / "sitecustomize.py").write_text(NOTHING_HEAVY)
    done = bitsure(*arguments, environment={"PYTHONPATH": python_path(tmp_path)})
    assert done.returncode == 0 and shown in done.stdout, done.stderr


def test_a_run_leaves_what_the_contract_says(finished):
    run = finished.directory
    for name in (
        "config.yaml",
        "provenance.json",
        "records.parquet",
        "metrics.json",
        "comparison.json",
        "quantization.json",
        "compressibility.json",
        "report.html",
    ):
        assert (run / name).is_file(), name
    assert list((run / "figures").glob("*.png"))
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "done" and status["error"] is None and status["seconds"]["score quantized"] > 0
    rows, made_from = read_records(run / "records.parquet")
    assert len(rows) == 20 and made_from["tiny_pets"]["weights"]["quant"]["bits"] == 3
    comparison = json.loads((run / "comparison.json").read_text())["tiny_pets"]
    metrics = json.loads((run / "metrics.json").read_text())["tiny_pets"]
    assert comparison["accuracy"]["quantized"] == metrics["accuracy"]["value"]
    assert comparison["questions_joined"]["value"] == 20
    proof, coded = (json.loads((run / f"{name}.json").read_text()) for name in ("quantization", "compressibility"))
    assert proof["bits_per_weight_coded"] == coded["weights"]["bits_per_weight_coded"] < proof["bits_per_weight"]
    assert coded["weights"]["bits_per_weight"] == pytest.approx(proof["bits_per_weight"]) and coded["activations"]["n"] > 0
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["questions"] == {"tiny_pets": {"asked": 20, "available": 20}}
    own_files = provenance["own_task_files"]
    assert own_files and all(hash_file(Path(file)) == sha256 for file, sha256 in own_files.items())
    assert "\nweights: 3." in finished.stdout and f"checkpoint {proof['checkpoint']}" in finished.stdout
    assert Path(proof["checkpoint"], "model.safetensors").is_file()
    assert (
        "Size: 3." in finished.stdout
        and "How large are the weights, and how long do they take to load?" in (run / "report.html").read_text()
    )
    assert "true-label prob." in finished.stdout and str(run / "report.html") in finished.stdout
    assert finished.stderr == ""


@pytest.mark.slow
def test_a_run_says_what_it_cost_from_the_store_as_well(bitsure, tiny, tmp_path):
    for name in ("first", "second"):
        done = bitsure(*tiny, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / name / "costs.json").read_text()) for name in ("first", "second"))
    assert first == second  # the second made nothing
    proof = json.loads((tmp_path / "first" / "quantization.json").read_text())
    assert first["quantizing"] == {key: proof[key] for key in WorkCosts.model_fields} and proof["peak_memory_bytes"] > 50e6
    for scored in (first["scoring_full_precision"], first["scoring_quantized"]):
        assert scored["tokens"] > 0 and scored["peak_memory_bytes"] > 50e6
        assert scored["tokens_per_second"] == pytest.approx(scored["tokens"] / scored["seconds"])
        assert list(scored["by_task"]) == ["tiny_pets"]


@pytest.mark.slow
def test_full_precision_alone_compares_nothing(bitsure, tiny, tmp_path):
    done = bitsure(*tiny, "quant=none", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "comparison.json").exists() and not (tmp_path / "run" / "quantization.json").exists()


def test_a_second_run_finds_everything_in_the_store_and_loads_no_model(bitsure, finished, tmp_path):
    store = {"BITSURE_STORE": str(finished.store)}
    done = bitsure(*finished.overrides, "hydra.run.dir=second", environment=store, before=NO_MODEL)
    assert done.returncode == 0, done.stderr
    first, second = (read_records(folder / "records.parquet") for folder in (finished.directory, tmp_path / "second"))
    assert first == second
    assert "reused     records of full precision and quantized, scored before; " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "edit"])
def test_damaged_records_in_the_store_are_made_again(bitsure, tiny, tmp_path, damage):
    bitsure(*tiny, "hydra.run.dir=first")
    for path in (tmp_path / "store" / "records").glob("*/records.parquet"):
        content = path.read_bytes()
        path.write_bytes(content[:-40] if damage == "cut" else content.replace(b"PAR1", b"PAR2", 1))
    done = bitsure(*tiny, "hydra.run.dir=second")
    assert done.returncode == 0, done.stderr
    assert read_records(tmp_path / "first" / "records.parquet") == read_records(tmp_path / "second" / "records.parquet")


@pytest.mark.slow
def test_a_sweep_runs_every_cell_and_the_same_command_again_none(bitsure, tiny, tmp_path):
    command = ["-m", *tiny, "quant=rtn2,rtn8", "hydra.sweep.dir=sweep"]
    planned = bitsure(*command, "plan=true")
    assert planned.returncode == 0, planned.stderr
    assert "2 cells, 0 done; 5 sets of weights or records" in planned.stdout and "An estimate" in planned.stdout
    assert not (tmp_path / "sweep").exists()
    assert {path.name for path in (tmp_path / "store").iterdir()} == {
        "version",
        "locks",
        "hashes",
        "task_files",
    }  # nothing was made
    done = bitsure(*command)
    assert done.returncode == 0, done.stderr + done.stdout
    names = [one["directory"] for one in json.loads((tmp_path / "sweep" / "plan.json").read_text())["cells"]]
    assert names == ["0-local-rtn2", "1-local-rtn8"]
    assert [json.loads((tmp_path / "sweep" / name / "status.json").read_text())["state"] for name in names] == ["done"] * 2
    again = bitsure(*command, environment={"BITSURE_STORE": str(tmp_path / "none")})
    assert again.returncode == 1 and "already holds records" in again.stderr  # another config: another store
    again = bitsure(*command)
    assert again.returncode == 0 and again.stdout.count(": done before") == 2
    planned = bitsure(*command, "plan=true")
    assert "2 cells, 2 done; 0 sets of weights or records" in planned.stdout
    single = bitsure(*tiny, "quant=rtn3", "plan=true", "hydra.run.dir=single")
    assert single.returncode == 0 and "1 cell, 0 done; 2 sets of weights or records" in single.stdout
    assert not (tmp_path / "single" / "records.parquet").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_what_was_finished_before_a_kill_is_picked_up(bitsure, tiny, tmp_path, kill):
    """A run that is stopped amid a task goes on with the batches that are left: the others are in a journal."""
    tasks = tmp_path / "tasks"
    write_task(tasks, "quick", questions=20, length=20)
    write_task(tasks, "slow", questions=200, length=200)
    arguments = [*tiny, f"task.include_path={tasks}", "task.names=[quick,slow]", "hydra.run.dir=run"]
    (tmp_path / "sitecustomize.py").write_text(PAUSE_AMID_SLOW)
    process = bitsure(*arguments, wait=False, environment={"PYTHONPATH": python_path(tmp_path)})
    wait_until(lambda: (tmp_path / "paused").exists() or process.poll() is not None, "the second task has begun")
    process.send_signal(kill)
    output, _ = process.communicate(timeout=MOST)
    assert process.returncode != 0, output
    status = check_status(tmp_path / "run", "failed" if kill == signal.SIGINT else "running")
    assert status.error == ("interrupted" if kill == signal.SIGINT else None)
    store = tmp_path / "store"
    kept = {path: path.stat().st_mtime_ns for path in (store / "records").glob("[!.]*/manifest.json")}
    [journal] = (path for path in (store / "unfinished").glob("*.jsonl") if ".answers" not in path.name)
    lines = journal.read_text().count("\n") - 1  # the first says what batches may have
    assert kept and 0 < lines < 400
    done = bitsure(*arguments)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert len(read_records(tmp_path / "run" / "records.parquet")[0]) == 220
    assert f"slow: {lines} choices and answers were scored before" in (tmp_path / "run" / "main.log").read_text()
    assert not any((store / "unfinished").glob("*.jsonl"))


STOPPED = """
import os, sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl

compose = ConfigLoaderImpl.load_sweep_config

def stopped(*arguments):
    if sys._getframe(1).f_code.co_name == {caller!r}:
        os.kill(os.getpid(), {number})
    return compose(*arguments)

ConfigLoaderImpl.load_sweep_config = stopped
"""


@pytest.mark.parametrize(
    ("number", "caller"),
    [
        pytest.param(signal.SIGTERM, "_load", id="SIGTERM while all cells are composed"),
        pytest.param(signal.SIGINT, "launch", id="SIGINT while a cell starts"),
    ],
)
def test_a_signal_between_cells_ends_a_sweep_with_a_sentence(bitsure, tiny, number, caller):
    stopped = bitsure("-m", *tiny, "quant=rtn3,rtn4", before=STOPPED.format(caller=caller, number=int(number)))
    assert stopped.returncode == 130 and "the same command continues from there" in stopped.stderr
    assert "Traceback" not in stopped.stderr


@pytest.mark.slow
@needs_shared
def test_real_tasks_on_real_weights_of_awkward_widths(bitsure, tmp_path):
    """stories260K: widths 64 and 172, which no group of 128 divides; the study's C4 is unavailable here."""
    arguments = ["model=local", f"model.path={SHARED}/hub/models/karpathy/stories260K", f"paths.hub_mirror={SHARED}/hub"]
    limits = ["task.names=[arc_easy,boolq,piqa]", "task.limit=8", "calib.nsamples=16", "metric.resamples=100"]
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody answers there
    done = bitsure(*arguments, *limits, "tracking.mode=disabled", "hydra.run.dir=run", environment=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    proof = json.loads((tmp_path / "run" / "quantization.json").read_text())
    assert proof["group_sizes"] == {"64": 30, "128 and 44": 5} and len(proof["modules_quantized"]) == 35
    assert "c4 is unavailable" in proof["calib_data"]["name"] and "c4 is unavailable" in done.stdout
    assert all(layer["output_error"] > 0.01 for layer in proof["layers"].values())
    refused = bitsure(*arguments, *limits, "quant=gptq3", environment=environment)
    assert (refused.returncode == 1 and "64 × 172" in refused.stderr + refused.stdout) or "172 × 64" in refused.stderr


@pytest.mark.slow
def test_the_store_of_a_run_holds_a_checkpoint_that_reads_back(bitsure, tiny, tmp_path):
    from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint

    bitsure(*tiny, "hydra.run.dir=run")
    made_from = read_records(tmp_path / "run" / "records.parquet")[1]["tiny_pets"]["weights"]
    directory = Store(Path(tmp_path / "store")).find("weights", made_from)
    weights, _ = read_checkpoint(directory)
    assert len(weights) == 12 and all(weight.codes.max() < 8 for weight in weights.values())


@pytest.mark.slow
def test_a_strict_verdict_fails_the_command_and_keeps_everything(bitsure, tiny, tmp_path):
    write_task(tmp_path / "tasks", "forty", questions=40, length=20)
    task = [f"task.include_path={tmp_path / 'tasks'}", "task.names=[forty]"]
    done = bitsure(*tiny, *task, "verdict=strict", "verdict.accuracy_margin=0.0001", "hydra.run.dir=run")
    assert done.returncode == 1 and "verdict=strict: " in done.stderr and "Traceback" not in done.stderr
    judged = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert judged["strict"] and judged["verdict"] != "non-inferior" and "Verdict: " in done.stdout
    assert (tmp_path / "run" / "report.html").is_file()
    wide = ["verdict.accuracy_margin=2", "verdict.nll_margin=50", "verdict.calibration_error_margin=2"]
    sure = ["model=pocket-300k", "quant=rtn8", "task.names=[pocket_recall]", "task.limit=200", "tracking.mode=disabled"]
    assert bitsure(*sure, "verdict=strict", *wide, "hydra.run.dir=other").returncode == 0
