"""Cells of a sweep that end in every way there is, through the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from bitsure.base.store import Store
from bitsure.config.paths import PROJECT
from bitsure.run.directory import read_status

SWEEP = [
    "-m",
    "model=pocket-300k",
    "quant=rtn2,rtn3,none",
    "task.names=[pocket_recall]",
    "task.limit=10",
    "metric.resamples=100",
    "tracking.mode=disabled",
    "hydra.sweep.dir=sweep",
]
# in place of what a cell does, as an import hook of the tests' own: each quantizer ends in another way
ENDS = """
import os, signal, sys, time
from bitsure import cells, pipeline
from bitsure.rundir import open_run
from bitsure.store import Store
from bitsure.config import resolved
def run(config, run_dir, sweep=None):
    with open_run(run_dir, resolved(config)) as current, current.stage("check"):
        what = os.environ["ENDS_" + config.quant.name.upper()]
        match what:
            case "done": (run_dir / "records.parquet").write_bytes(b"PAR1")
            case "raise": raise ValueError("of no use")
            case "kill": os.kill(os.getpid(), signal.SIGKILL)
            case "segfault": import ctypes; ctypes.string_at(0)
            case "memory": sys.stderr.write("terminate called after throwing std::bad_alloc\\n"); os.abort()
            case "exit": os._exit(3)
            case "hang": time.sleep(600)
            case "wait":
                with Store(config.paths.store).lock("weights", "of another"):
                    (run_dir / "records.parquet").write_bytes(b"PAR1")
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
pipeline.run = run
"""
IN_CELLS = "import sys\nif 'forkserver' in ' '.join(sys.orig_argv):\n    import {module}\n"
NO_MODEL = """
from transformers import PreTrainedModel
def no(*given, **settings): raise AssertionError("a model is loaded")
PreTrainedModel.from_pretrained = PreTrainedModel.__init__ = no
"""


@pytest.fixture
def sweep(tmp_path):
    """Runs a sweep of three cells, each of which ends as it is told."""
    (tmp_path / "ends.py").write_text(ENDS)
    (tmp_path / "sitecustomize.py").write_text(IN_CELLS.format(module="ends"))

    def run(rtn2: str, rtn3: str, none: str, *overrides: str, wait: bool = True):
        environment = os.environ | {"BITSURE_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
        environment |= {"ENDS_RTN2": rtn2, "ENDS_RTN3": rtn3, "ENDS_NONE": none}
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, str(PROJECT / "main.py"), *SWEEP, *overrides]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not wait:
            return process
        said, _ = process.communicate(timeout=120)
        return process.returncode, said, [read_status(path) for path in sorted((tmp_path / "sweep").glob("[0-9]*"))]

    return run


def test_no_end_of_a_cell_is_the_end_of_the_others_and_the_same_command_runs_what_is_missing(sweep, tmp_path):
    code, said, found = sweep("raise", "kill", "done")
    assert code == 1, said
    assert [one["state"] for one in found] == ["failed", "killed", "done"], said
    assert found[0]["error"] == "ValueError: of no use" and "SIGKILL" in found[1]["error"]
    assert "2 failed; the same command tries again what did" in said and "ValueError: of no use" in said
    plan = json.loads((tmp_path / "sweep" / "plan.json").read_text())["cells"]
    assert [one["name"] for one in plan] == ["pocket-300k rtn2", "pocket-300k rtn3", "pocket-300k none"]
    assert plan[0]["directory"] == "0-pocket-300k-rtn2" and "quant=rtn2" in plan[0]["overrides"]
    code, said, found = sweep("segfault", "memory", "raise")
    assert code == 1 and [one["state"] for one in found] == ["killed", "killed", "done"], said
    assert "SIGSEGV" in found[0]["error"] and "Segmentation fault" in found[0]["error"] and "ctypes" in found[0]["error"]
    assert "SIGABRT" in found[1]["error"] and "bad_alloc" in found[1]["error"]
    code, said, found = sweep("exit", "done", "raise")
    assert code == 1 and [one["state"] for one in found] == ["failed", "done", "done"], said
    code, said, found = sweep("done", "raise", "raise")
    assert code == 0 and [one["state"] for one in found] == ["done"] * 3, said


def test_a_cell_costs_less_than_two_seconds_beside_its_work(sweep):
    code, said, found = sweep("done", "done", "done")
    assert code == 0, said
    assert min(after["started"] - before["started"] for before, after in pairwise(found)) < 2


def test_a_finished_sweep_again_loads_no_model_and_takes_less_than_three_seconds_a_cell(tmp_path):
    """Neither where it was finished, nor in another place, where every piece is found in the store."""
    environment = os.environ | {"BITSURE_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}

    def run(folder: str) -> str:
        command = [sys.executable, str(PROJECT / "main.py"), *SWEEP, f"hydra.sweep.dir={folder}"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("first")
    (tmp_path / "no_model.py").write_text(NO_MODEL)
    (tmp_path / "sitecustomize.py").write_text(IN_CELLS.format(module="no_model"))
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    assert run("first").count("is done: nothing to do") == 3
    run("again")
    again = [read_status(path) for path in sorted((tmp_path / "again").glob("[0-9]*"))]
    assert [one["state"] for one in again] == ["done"] * 3
    assert min(after["started"] - before["started"] for before, after in pairwise(again)) < 3
    for cell in ("0-pocket-300k-rtn2", "2-pocket-300k-none"):
        made = [(tmp_path / folder / cell / "metrics.json").read_bytes() for folder in ("first", "again")]
        assert made[0] == made[1]


def test_a_cell_that_hangs_is_stopped_after_its_time_asked_first(sweep):
    started = time.monotonic()
    code, said, found = sweep("hang", "done", "deaf", "sweep.time_limit=1")
    assert code == 1 and time.monotonic() - started < 60
    assert [one["state"] for one in found] == ["timed out", "done", "timed out"], said
    assert (
        "sweep.time_limit=1 seconds, waiting for other cells not counted" in found[0]["error"]
        and "time.sleep" in found[0]["error"]
    )


def test_waiting_for_another_cell_is_none_of_a_cells_time(sweep, tmp_path):
    with Store(tmp_path / "store").lock("weights", "of another"):
        process = sweep("wait", "done", "done", "sweep.time_limit=2", wait=False)
        deadline = time.monotonic() + 60
        while not read_status(tmp_path / "sweep" / "0-pocket-300k-rtn2") and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(6)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert read_status(tmp_path / "sweep" / "0-pocket-300k-rtn2")["state"] == "done"


def test_a_cell_ends_with_its_sweep(sweep, tmp_path):
    process = sweep("hang", "done", "done", wait=False)
    status, deadline = {}, time.monotonic() + 60
    while not status and time.monotonic() < deadline:
        time.sleep(0.05)
        status = read_status(tmp_path / "sweep" / "0-pocket-300k-rtn2")
    process.kill()
    process.communicate()
    while time.monotonic() < deadline and _alive(status["pid"]):
        time.sleep(0.05)
    assert not _alive(status["pid"])


def test_ctrl_c_ends_the_cell_and_the_sweep(sweep, tmp_path):
    process = sweep("hang", "done", "done", wait=False)
    deadline = time.monotonic() + 60
    while not (status := read_status(tmp_path / "sweep" / "0-pocket-300k-rtn2")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 130
    assert read_status(tmp_path / "sweep" / "0-pocket-300k-rtn2")["error"] == "interrupted" and not _alive(status["pid"])
    assert not (tmp_path / "sweep" / "1-pocket-300k-rtn3").exists()


def _alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


WATCHED = """
import os, sys, torch
from bitsure import gpus
gpus._all = lambda: {gpus_here}
looked = []
torch.cuda.is_available = lambda: looked.append(True)
import bitsure.preload
assert not torch.cuda.is_initialized() and "gptqmodel" not in sys.modules
assert not ({gpus_here} and looked)
print(*(open(f"/proc/self/task/{{task}}/comm").read().strip() for task in os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize("gpus_here", [{}, {"0": "GPU-a"}], ids=["no GPU", "a GPU"])
def test_what_is_imported_before_a_cell_is_forked_has_run_nothing(gpus_here):
    """Else it could not be forked: other threads would be missing in the cell, and no GPU could be used there."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # OpenBLAS starts its threads anew in a fork
    command = [sys.executable, "-c", WATCHED.format(gpus_here=gpus_here)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["jemalloc_bg_thd", "python"]  # Arrow's, which does so too
    assert not done.stderr  # it would stand in the middle of a sweep's output
