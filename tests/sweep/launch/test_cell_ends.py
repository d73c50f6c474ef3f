"""Cells of a sweep that end in every way there is, through the command line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bitsure.base.store import PATIENCE, Store
from bitsure.results import Status
from bitsure.run.directory import read_status
from tests.builders.forked_commands import Commands, Running
from tests.builders.stopped_runs import check_status, is_alive, wait_until
from tests.builders.sweep_commands import CELLS, SWEEP

# replaces what a cell does, by a program that their processes run first: each quantizer's cell ends in another way
ENDS = """
import os, signal, sys, tempfile, time
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
    Path(f"{run_dir.name}.temporary").write_text(tempfile.mkdtemp())
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
        Path(f"{arguments[1].name}.waited").write_text(str(arguments[-1].waited.value))

pipeline.run, cell_process._run_cell = run, counted
"""


@dataclass
class Sweep:
    """Starts sweeps of three cells, each of which ends as it is told."""

    commands: Commands
    folder: Path
    started: list[Running] = field(default_factory=list)

    def start(self, *ends: str, overrides: tuple[str, ...] = ()) -> Running:
        variables = dict(zip(("END_RTN2", "END_RTN3", "END_NONE"), ends, strict=True))
        variables["BITSURE_STORE"] = str(self.folder / "store")
        process = self.commands.start(*SWEEP, *overrides, cwd=self.folder, environment=variables, in_cells=ENDS)
        self.started.append(process)
        return process

    def run(self, *ends: str, overrides: tuple[str, ...] = ()) -> tuple[int, str, list[Status]]:
        done = self.start(*ends, overrides=overrides).wait()
        states = ("done", "failed", "killed", "timed out")
        return done.returncode, done.stdout + done.stderr, [check_status(self.cell(number), *states) for number in range(3)]

    def cell(self, number: int) -> Path:
        return self.folder / "sweep" / CELLS[number]

    def wait_for_cell(self, number: int) -> int:
        """Return the process of a cell that has begun its work."""
        started = self.folder / f"{CELLS[number]}.started"
        return int(wait_until(lambda: started.is_file() and started.read_text(), f"cell {number} has begun"))


@pytest.fixture
def sweep(commands, tmp_path) -> Iterator[Sweep]:
    sweep = Sweep(commands, tmp_path)
    yield sweep
    for process in sweep.started:
        process.stop()


def states(statuses: list[Status]) -> list[str]:
    return [status.state for status in statuses]


@pytest.mark.slow
def test_no_end_of_a_cell_is_the_end_of_the_others_and_the_same_command_runs_what_is_missing(sweep, tmp_path):
    code, output, cells = sweep.run("raise", "kill", "done")
    assert (code, states(cells)) == (1, ["failed", "killed", "done"]), output
    temporary = [Path(file.read_text()) for file in tmp_path.glob("*.temporary")]
    assert len(temporary) == 3 and not any(folder.exists() for folder in temporary)
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
def test_a_cell_that_hangs_is_asked_to_end_after_its_time_and_then_made_to(sweep):
    code, output, cells = sweep.run("hang", "hang early", "deaf", overrides=("sweep.time_limit=5",))
    assert (code, states(cells)) == (1, ["timed out"] * 3), output
    assert all("sweep.time_limit=5 seconds, waiting for other cells not counted" in cell.error for cell in cells)
    assert cells[0].error.endswith(", in run\nKeyboardInterrupt")  # where it hung


@pytest.mark.slow
def test_a_cell_tells_how_long_it_waited_for_another_one(sweep, tmp_path):
    with Store(tmp_path / "store").lock("weights", "of another"):
        process = sweep.start("wait", "done", "done")
        log = sweep.cell(0) / "main.log"
        wait_until(lambda: log.is_file() and "waiting for another process" in log.read_text(), "the cell waits")
    done = process.wait()
    assert done.returncode == 0, done.stdout + done.stderr
    assert float((tmp_path / f"{CELLS[0]}.waited").read_text()) >= PATIENCE
    assert float((tmp_path / f"{CELLS[1]}.waited").read_text()) == 0
    check_status(sweep.cell(0), "done")


@pytest.mark.slow
def test_a_cell_ends_with_its_sweep(sweep):
    process = sweep.start("hang", "done", "done")
    cell = sweep.wait_for_cell(0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
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
    done = process.wait()
    assert done.returncode == 130, done.stdout + done.stderr
    status = check_status(sweep.cell(0), "failed")
    assert (status.error, status.pid) == ("interrupted", cell) and not is_alive(cell)
    assert read_status(sweep.cell(1)) is None
