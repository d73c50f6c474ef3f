"""Cells of a sweep that end in every way there is, through the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from bitsure.base.store import PATIENCE, Store
from bitsure.config.paths import PROJECT
from bitsure.config.schema import SweepSettings
from bitsure.quantize.libraries.hqq import Hqq
from bitsure.results import Labels, Status
from bitsure.run.directory import read_status
from bitsure.sweep.launch import cell_process
from bitsure.sweep.launch.callback import failures
from bitsure.sweep.launch.cell_line import CellLine
from tests.builders.stopped_runs import MOST, check_status, is_alive, wait_until

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
CELLS = ["0-pocket-300k-rtn2", "1-pocket-300k-rtn3", "2-pocket-300k-none"]
# replaces what a cell does, by an import hook of the tests: each quantizer's cell ends in another way
ENDS = """
import os, signal, sys, time
from pathlib import Path
from bitsure.base.store import Store
from bitsure.config.schema import resolved
from bitsure.run import pipeline
from bitsure.run.directory import open_run
from bitsure.sweep.launch import cell_process
from bitsure.sweep.launch.callback import failures
from bitsure.sweep.launch.cell_line import CellLine

def run(config, run_dir, sweep, on_wait, labels):
    end = os.environ["END_" + config.quant.name.upper()]
    match end:
        case "hang early":
            Path(f"{run_dir.name}.started").write_text(str(os.getpid()))
            time.sleep(3600)
        case "kill early": os.kill(os.getpid(), signal.SIGKILL)
    with open_run(run_dir, resolved(config)) as current, current.stage("check"):
        Path(f"{run_dir.name}.started").write_text(str(os.getpid()))
        (run_dir / "metrics.json").write_text("{}")
        match end:
            case "done": (run_dir / "records.parquet").write_bytes(b"PAR1")
            case "raise": raise ValueError("of no use")
            case "kill": os.kill(os.getpid(), signal.SIGKILL)
            case "segfault": import ctypes; ctypes.string_at(0)
            case "memory": sys.stderr.write("terminate called after throwing std::bad_alloc\\n"); os.abort()
            case "exit": os._exit(3)
            case "hang": time.sleep(3600)
            case "wait":
                with Store(config.paths.store, on_wait).lock("weights", "of another"):
                    (run_dir / "records.parquet").write_bytes(b"PAR1")
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(3600)

run_cell = cell_process._run_cell

def counted(*arguments):
    try:
        run_cell(*arguments)
    finally:
        Path(f"{arguments[1].name}.waited").write_text(str(arguments[-1].value))

pipeline.run, cell_process._run_cell = run, counted
"""
IN_CELLS = "import sys\nif 'forkserver' in ' '.join(sys.orig_argv):\n    import {module}\n"
NO_MODEL = """
from transformers import PreTrainedModel
def no(*given, **settings): raise AssertionError("a model is loaded")
PreTrainedModel.from_pretrained = PreTrainedModel.__init__ = no
"""


def environment(folder: Path, module: str = "", **variables: str) -> dict[str, str]:
    """Return the environment of a sweep in a folder; cells import a module of that folder first."""
    if module:
        (folder / "sitecustomize.py").write_text(IN_CELLS.format(module=module))
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"BITSURE_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1", "PYTHONPATH": path} | variables


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


@dataclass
class Sweep:
    """Starts sweeps of three cells, each of which ends as it is told."""

    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *ends: str, overrides: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        variables = dict(zip(("END_RTN2", "END_RTN3", "END_NONE"), ends, strict=True))
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "main.py"), *SWEEP, *overrides],
            cwd=self.folder,
            env=environment(self.folder, "ends", **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a process group of its own, as a terminal's command has
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        )
        self.processes.append(process)
        return process

    def run(self, *ends: str, overrides: tuple[str, ...] = ()) -> tuple[int, str, list[Status]]:
        process = self.start(*ends, overrides=overrides)
        output, _ = process.communicate(timeout=MOST)
        states = ("done", "failed", "killed", "timed out")
        return process.returncode, output, [check_status(self.cell(number), *states) for number in range(3)]

    def cell(self, number: int) -> Path:
        return self.folder / "sweep" / CELLS[number]

    def wait_for_cell(self, number: int) -> int:
        """Return the process of a cell that has begun its work."""
        started = self.folder / f"{CELLS[number]}.started"
        return int(wait_until(lambda: started.is_file() and started.read_text(), f"cell {number} has begun"))


@pytest.fixture
def sweep(tmp_path) -> Iterator[Sweep]:
    (tmp_path / "ends.py").write_text(ENDS)
    sweep = Sweep(tmp_path)
    yield sweep
    for process in sweep.processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def states(statuses: list[Status]) -> list[str]:
    return [status.state for status in statuses]


@pytest.mark.slow
def test_no_end_of_a_cell_is_the_end_of_the_others_and_the_same_command_runs_what_is_missing(sweep, tmp_path):
    code, output, cells = sweep.run("raise", "kill", "done")
    assert (code, states(cells)) == (1, ["failed", "killed", "done"]), output
    assert cells[0].error == "ValueError: of no use" and "SIGKILL" in cells[1].error
    assert "2 failed or stopped; the same command tries again what did" in output and "ValueError: of no use" in output
    plan = json.loads((tmp_path / "sweep" / "plan.json").read_text())["cells"]
    assert [cell["name"] for cell in plan] == ["pocket-300k rtn2", "pocket-300k rtn3", "pocket-300k none"]
    assert plan[0]["directory"] == CELLS[0] and "quant=rtn2" in plan[0]["overrides"]
    code, output, cells = sweep.run("segfault", "memory", "raise")
    assert (code, states(cells)) == (1, ["killed", "killed", "done"]), output
    assert "SIGSEGV" in cells[0].error and "Segmentation fault" in cells[0].error and "ctypes" in cells[0].error
    assert "SIGABRT" in cells[1].error and "bad_alloc" in cells[1].error
    before = cells[0].pid
    code, output, cells = sweep.run("kill early", "exit", "raise")
    assert (code, states(cells)) == (1, ["killed", "failed", "done"]), output
    assert "SIGKILL" in cells[0].error and cells[0].pid != before and "exit code 3" in cells[1].error
    code, output, cells = sweep.run("done", "done", "raise")
    assert (code, states(cells)) == (0, ["done"] * 3), output


@pytest.mark.slow
def test_a_finished_sweep_again_loads_no_model(tmp_path):
    """Neither where it was finished, nor in another place, where every piece is found in the store."""
    module = ""

    def run(folder: str) -> str:
        command = [sys.executable, str(PROJECT / "main.py"), *SWEEP, f"hydra.sweep.dir={folder}"]
        variables = environment(tmp_path, module)
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=2 * MOST)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("first")
    (tmp_path / "no_model.py").write_text(NO_MODEL)
    module = "no_model"
    assert run("first").count(": done before") == 3
    run("again")
    for cell in CELLS:
        check_status(tmp_path / "again" / cell, "done")
        first, again = ((tmp_path / folder / cell / "metrics.json").read_bytes() for folder in ("first", "again"))
        assert first == again


@pytest.mark.slow
def test_a_cell_that_hangs_is_asked_to_end_after_its_time_and_then_made_to(sweep):
    code, output, cells = sweep.run("hang", "hang early", "deaf", overrides=("sweep.time_limit=3",))
    assert (code, states(cells)) == (1, ["timed out"] * 3), output
    assert all("sweep.time_limit=3 seconds, waiting for other cells not counted" in cell.error for cell in cells)
    assert "time.sleep" in cells[0].error


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


@pytest.mark.slow
def test_a_cell_tells_how_long_it_waited_for_another_one(sweep, tmp_path):
    with Store(tmp_path / "store").lock("weights", "of another"):
        process = sweep.start("wait", "done", "done")
        log = sweep.cell(0) / "main.log"
        wait_until(lambda: log.is_file() and "waiting for another process" in log.read_text(), "the cell waits")
    output, _ = process.communicate(timeout=MOST)
    assert process.returncode == 0, output
    assert float((tmp_path / f"{CELLS[0]}.waited").read_text()) >= PATIENCE
    assert float((tmp_path / f"{CELLS[1]}.waited").read_text()) == 0
    check_status(sweep.cell(0), "done")


@pytest.mark.slow
def test_a_cell_ends_with_its_sweep(sweep):
    process = sweep.start("hang", "done", "done")
    cell = sweep.wait_for_cell(0)
    process.kill()
    wait_until(lambda: not is_alive(cell), "the cell's process is gone")
    assert check_status(sweep.cell(0), "running").pid == cell


@pytest.mark.parametrize(
    ("end", "number", "to_group"),
    [
        ("hang", signal.SIGINT, True),  # a terminal's Ctrl-C
        pytest.param("hang early", signal.SIGINT, True, marks=pytest.mark.slow),
        pytest.param("hang", signal.SIGTERM, False, marks=pytest.mark.slow),  # a scheduler's stop
        pytest.param("hang early", signal.SIGTERM, False, marks=pytest.mark.slow),
    ],
)
def test_whoever_stops_a_sweep_stops_its_cell_which_says_so(sweep, end, number, to_group):
    process = sweep.start(end, "done", "done")
    cell = sweep.wait_for_cell(0)
    (os.killpg if to_group else os.kill)(process.pid, number)
    output, _ = process.communicate(timeout=MOST)
    assert process.returncode == 130, output
    status = check_status(sweep.cell(0), "failed")
    assert (status.error, status.pid) == ("interrupted", cell) and not is_alive(cell)
    assert read_status(sweep.cell(1)) is None


WATCHED = """
import os, sys, torch
from bitsure.sweep.launch import gpus
gpus._all = lambda: {gpus_here}
looked = []
torch.cuda.is_available = lambda: looked.append(True)
import bitsure.sweep.launch.preload
assert not torch.cuda.is_initialized() and "gptqmodel" not in sys.modules
assert not ({gpus_here} and looked)
print(*(open(f"/proc/self/task/{{task}}/comm").read().strip() for task in os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize(
    "gpus_here", [pytest.param({}, id="no GPU"), pytest.param({"0": "GPU-a"}, id="a GPU", marks=pytest.mark.slow)]
)
def test_what_is_imported_before_a_cell_is_forked_has_run_nothing(gpus_here):
    """A process that has threads, or has used a GPU, must not be forked: the cell would lack those and not reach this one."""
    variables = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # OpenBLAS starts its threads anew in a fork
    command = [sys.executable, "-c", WATCHED.format(gpus_here=gpus_here)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST, env=variables)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["jemalloc_bg_thd", "python"]  # Arrow's thread is started anew, too
    assert not done.stderr  # a user would read it in the middle of a sweep's output
