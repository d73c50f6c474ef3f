"""A cell's process: what it has before it begins, how long it may take, and that a finished one is not run again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bitsure.config.paths import PROJECT
from bitsure.config.schema import SweepSettings
from bitsure.quantize.libraries.hqq import Hqq
from bitsure.results import Labels
from bitsure.run.directory import read_status
from bitsure.sweep.launch import cell_process
from bitsure.sweep.launch.callback import failures
from bitsure.sweep.launch.cell_line import CellLine
from tests.builders.forked_commands import ERRORS
from tests.builders.stopped_runs import MOST, check_status
from tests.builders.sweep_commands import CELLS, SWEEP

IN_CELLS = "import sys\nif 'forkserver' in ' '.join(sys.orig_argv):\n    import no_model\n"
NO_MODEL = """
from transformers import PreTrainedModel
def no(*given, **settings): raise AssertionError("a model is loaded")
PreTrainedModel.from_pretrained = PreTrainedModel.__init__ = no
"""


def test_a_cell_whose_library_is_not_installed_is_skipped_and_does_not_fail_the_sweep(
    not_installed, monkeypatch, tmp_path, capsys
):
    not_installed("hqq")
    monkeypatch.setattr(cell_process.multiprocessing, "Process", None)  # nothing is started
    quant = Hqq(bits=4, group_size=64)
    config = SimpleNamespace(sweep=SweepSettings(skip_not_installed=True), quant=quant)
    monkeypatch.setattr(cell_process, "resolved", lambda config: {})
    run_dir = tmp_path / "0-hqq4"
    run_dir.mkdir()
    cell_process.run(config, run_dir, CellLine(run_dir, tmp_path, Labels(model="m", quantizer="hqq4")), {})
    status = read_status(run_dir)
    assert status is not None and status.state == "skipped" and "python -m pip install -e '.[hqq]'" in (status.error or "")
    assert "0-hqq4: m, hqq4: skipped: quant=hqq4 needs hqq, which is not installed" in capsys.readouterr().out.replace(
        "\n", " "
    )
    assert failures(tmp_path) == []


@pytest.mark.slow
def test_a_finished_sweep_again_loads_no_model(tmp_path):
    """Neither where it was finished, nor in another place, where every piece is found in the store."""
    variables = os.environ | {"BITSURE_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}

    def run(folder: str) -> str:
        command = [sys.executable, str(PROJECT / "main.py"), *SWEEP, f"hydra.sweep.dir={folder}"]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=2 * MOST)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("first")
    (tmp_path / "no_model.py").write_text(NO_MODEL)
    (tmp_path / "sitecustomize.py").write_text(IN_CELLS)
    variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    assert run("first").count(": done before") == 3
    run("again")
    for cell in CELLS:
        check_status(tmp_path / "again" / cell, "done")
        first, again = ((tmp_path / folder / cell / "metrics.json").read_bytes() for folder in ("first", "again"))
        assert first == again


class SlowProcess:
    """A process on a clock of its own: it waits for another cell at first and ends after some seconds."""

    def __init__(self, waits: float, ends: float):
        self.clock, self.waits, self.ends = 0.0, waits, ends
        self.waited = SimpleNamespace(value=0.0)

    def is_alive(self) -> bool:
        return self.clock < self.ends

    def join(self, timeout: float | None = None) -> None:
        self.clock = self.ends if timeout is None else min(self.ends, self.clock + timeout)
        self.waited.value = min(self.waits, self.clock)


@pytest.mark.parametrize(
    ("waits", "ends", "limit", "in_time"),
    [(0, 5, 4, False), (0, 5, 6, True), (3, 5, 4, True), (3, 8, 4, False), (0, 5, None, True)],
)
def test_waiting_for_another_cell_is_none_of_a_cells_time(monkeypatch, waits, ends, limit, in_time):
    process = SlowProcess(waits, ends)
    monkeypatch.setattr(cell_process.time, "monotonic", lambda: process.clock)
    assert cell_process._ends_in_time(process, limit, process.waited) == in_time


WATCHED = """
import atexit, gc, os, sys, torch
from bitsure.sweep.launch import gpus
atexit.register(lambda: gc.get_freeze_count() and os._exit(3))  # Triton, where it is installed, would print what is frozen
gpus._all = lambda: {gpus_here}
looked = []
torch.cuda.is_available = lambda: looked.append(True)
import bitsure.sweep.launch.preload
assert not torch.cuda.is_initialized() and "gptqmodel" not in sys.modules
assert not ({gpus_here} and looked)
print(*(open(f"/proc/self/task/{{task}}/comm").read().strip() for task in os.listdir("/proc/self/task")))
"""


def test_what_is_imported_before_a_cell_is_forked_has_run_nothing(commands, tmp_path):
    """A process that has threads, or has used a GPU, must not be forked: the cell would lack those and not reach this one."""
    program = "import sys, torch; print(torch.cuda.is_initialized(), 'gptqmodel' in sys.modules)"
    assert commands.run_python(tmp_path, "-c", program) == "False False\n"
    threads = [task.joinpath("comm").read_text().strip() for task in Path(f"/proc/{commands.server.pid}/task").iterdir()]
    assert sorted(threads) == ["jemalloc_bg_thd", "python"]  # Arrow's thread is started anew
    assert not (commands.folder / ERRORS).read_text()  # a user would read it in the middle of a sweep's output


@pytest.mark.slow
@pytest.mark.parametrize("gpus_here", [pytest.param({}, id="no GPU"), pytest.param({"0": "GPU-a"}, id="a GPU")])
def test_what_is_imported_looks_for_no_gpu_where_there_is_one(gpus_here):
    variables = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # OpenBLAS starts its threads anew in a fork
    command = [sys.executable, "-c", WATCHED.format(gpus_here=gpus_here)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST, env=variables)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["jemalloc_bg_thd", "python"]  # Arrow's thread is started anew, too
    assert not done.stderr  # a user would read it in the middle of a sweep's output
