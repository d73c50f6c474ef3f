"""vLLM with processes of its own (`make test-vllm`): a run that is stopped leaves none, and goes on where it was."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from bitsure.config.paths import PROJECT
from bitsure.records.parquet import read_records
from tests.builders.stopped_runs import MOST, PAUSE_AMID_SLOW, check_status, is_alive, python_path, wait_until
from tests.builders.written_tasks import write_task

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
]
INTERRUPTED = 130  # the exit code
ENGINE = "(EngineCore pid="  # begins what vLLM's engine writes
# sends the command SIGTERM when vLLM waits for its engine's end
STOP_AMID_END = """
import multiprocessing, os, signal
from multiprocessing.process import BaseProcess
from pathlib import Path
join = BaseProcess.join
def stopped(self, timeout=None):
    if self.name == "EngineCore" and not Path("stopped").exists():
        Path("stopped").touch()
        os.kill((multiprocessing.parent_process() or multiprocessing.current_process()).pid, signal.SIGTERM)
    join(self, timeout)
BaseProcess.join = stopped
"""
QUESTIONS = 4  # that vLLM is given at one time
VARIABLES = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
SETTINGS = ["scoring.engine=vllm", "scoring.vllm.eager=true", f"scoring.vllm.questions={QUESTIONS}"]


class Command:
    """main.py on the pocket Llama by vLLM, as a shell runs it: in a process group of its own, in which Ctrl-C reaches all."""

    def __init__(self, folder: Path, *others: str) -> None:
        write_task(folder / "tasks", "quick", questions=10, length=20)
        write_task(folder / "tasks", "slow", questions=30, length=200)
        self.folder, self.store, self.run, self._out = folder, folder / "store", folder / "run", folder / "out"
        given = ["model=pocket-llama-1m", "quant=none", f"task.include_path={folder / 'tasks'}", "task.names=[quick,slow]"]
        given += ["tracking.mode=disabled", "metric.resamples=100", f"hydra.run.dir={self.run}"]
        self._words = [sys.executable, str(PROJECT / "main.py"), *others, *given, *SETTINGS]
        self._own = VARIABLES | {"BITSURE_STORE": str(self.store), "HF_HUB_OFFLINE": "1", "HOME": str(folder)}

    def start(self, **variables: str) -> subprocess.Popen:
        """Start it; what it prints goes to a file."""
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which the shell's background jobs do not
        with self._out.open("a") as out:
            environment, output = os.environ | self._own | variables, {"stdout": out, "stderr": out}
            return subprocess.Popen(
                self._words, cwd=self.folder, env=environment, start_new_session=True, preexec_fn=heed, **output
            )

    def finish(self, **variables: str) -> tuple:
        """Run it to its end, and return its records."""
        assert self.start(**variables).wait(MOST) == 0, self._out.read_text()
        return read_records(self.run / "records.parquet")

    def stop_amid_slow(self, stop: signal.Signals) -> None:
        """Stop it when its second task's first batch is in the journal. Fail if a process of it goes on."""
        (self.folder / "sitecustomize.py").write_text(PAUSE_AMID_SLOW)
        process, paused = self.start(PYTHONPATH=python_path(self.folder)), self.folder / "paused"
        wait_until(lambda: paused.exists() or process.poll() is not None, "the second task has begun")
        assert len(descendants(process)) > 2, self._out.read_text()  # vLLM's engine and its worker among them
        self.check_stops(process, stop)

    def check_stops(self, process: subprocess.Popen, stop: signal.Signals) -> None:
        """Stop it now. It ends with all its processes, and after Ctrl-C and SIGTERM says so in one sentence."""
        assert process.poll() is None, self._out.read_text()
        started = descendants(process)
        (os.killpg if stop == signal.SIGINT else os.kill)(process.pid, stop)
        assert process.wait(MOST) == (-stop if stop == signal.SIGKILL else INTERRUPTED)
        wait_until(lambda: not any(map(is_alive, started)), "every process of the run has ended")
        if stop != signal.SIGKILL:
            self.check_says_so()

    def check_says_so(self) -> None:
        """It was interrupted, and printed no traceback."""
        printed = self._out.read_text()
        assert "\nInterrupted. Finished work is in the store" in printed and "Traceback" not in printed, printed


def descendants(process: subprocess.Popen) -> list[int]:
    """The numbers of the processes that it has started, and that they have."""
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The records of a run that is not stopped, by vLLM without processes of its own, which starts sooner."""
    return Command(tmp_path_factory.mktemp("whole")).finish(VLLM_ENABLE_V1_MULTIPROCESSING="0")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=lambda stop: stop.name)
def test_a_stopped_run_leaves_no_process_and_goes_on_where_it_was(stop, expected, tmp_path):
    stopped = Command(tmp_path)
    stopped.stop_amid_slow(stop)
    [journal] = (path for path in (stopped.store / "unfinished").glob("*.jsonl") if ".answers" not in path.name)
    kept = journal.read_text().count("\n") - 1  # the first line says what batches may have
    assert kept == QUESTIONS
    check_status(stopped.run, "running" if stop == signal.SIGKILL else "failed")
    records = stopped.finish()
    assert f"slow: {kept} choices and answers were scored before" in (stopped.run / "main.log").read_text()
    assert records == expected


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_a_run_is_stopped_while_vllm_starts(stop, tmp_path):
    stopped = Command(tmp_path)
    process = stopped.start()
    log = stopped.run / "libraries.log"
    wait_until(lambda: process.poll() is not None or (log.exists() and ENGINE in log.read_text()), "vLLM's engine has started")
    stopped.check_stops(process, stop)
    check_status(stopped.run, "failed")


@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
def test_what_is_stopped_while_vllm_ends_has_kept_its_records(sweep, expected, tmp_path):
    stopped = Command(tmp_path, *["-m", f"hydra.sweep.dir={tmp_path / 'sweep'}"] * sweep)
    (tmp_path / "sitecustomize.py").write_text(STOP_AMID_END)
    process = stopped.start(PYTHONPATH=python_path(tmp_path))
    assert process.wait(MOST) == INTERRUPTED
    stopped.check_says_so()
    assert (tmp_path / "stopped").exists()
    [status] = tmp_path.glob("sweep/0*/status.json" if sweep else "run/status.json")
    check_status(status.parent, "failed")
    assert len([*(stopped.store / "records").glob("[!.]*/manifest.json")]) == 2  # of both tasks
    assert Command(tmp_path).finish() == expected


def test_a_cell_of_a_sweep_ends_and_its_processes_with_it(tmp_path):
    sweep = Command(tmp_path, "-m", f"hydra.sweep.dir={tmp_path / 'sweep'}").start()
    assert sweep.wait(MOST) == 0, (tmp_path / "out").read_text()
