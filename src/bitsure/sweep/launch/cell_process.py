"""Run each cell of a sweep in a process of its own, so that no crash of one cell ends the others.

The launcher's task starts the process, so this holds for every launcher. Processes are forked from a server that has imported
the libraries and has run none of them, so that starting one takes milliseconds instead of the seconds of the imports.
"""

from __future__ import annotations

import faulthandler
import logging
import logging.config
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from ctypes import c_double
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bitsure.base import terminal
from bitsure.base.errors import NotInstalled, UserError
from bitsure.base.processes import end_with_parent
from bitsure.base.progress import begin_cell
from bitsure.base.signals import signals_ignored
from bitsure.config.schema import Config, resolved
from bitsure.quantize.plan import library_versions
from bitsure.quantize.quantizer import as_quantizer
from bitsure.results.run_files import INTERRUPTED, State
from bitsure.run.directory import is_done, read_status, write_end
from bitsure.sweep.launch import gpus
from bitsure.sweep.launch.cell_line import CellLine

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds that a process gets to end by itself after SIGTERM
INTERRUPT_GRACE = 1.0  # seconds that it gets after Ctrl-C, which a terminal sends to it, too
STDERR_FILE = "stderr.log"
LAST_LINES = 5
CRASH = "Fatal Python error"  # what faulthandler writes first


@dataclass(frozen=True)
class Surroundings:
    """What a cell's process gets from the launcher's."""

    job_logging: dict[str, Any]
    """Hydra's logging settings of the job, for Python's `dictConfig`."""
    environment: dict[str, str]
    """Its environment variables."""
    scratch: str
    """The directory of its temporary files, which the launcher's process removes."""
    waited: c_double
    """Shared memory: the seconds that it has waited for other cells."""


def run(config: Config, run_dir: Path, line: CellLine, job_logging: dict[str, Any]) -> None:
    """Run a cell in its own process, unless its directory holds its finished run already or the sweep leaves it out.

    However the process ends, status.json in `run_dir` says so. Failures are logged, not raised.

    Args:
        config: The cell's settings.
        run_dir: The cell's directory; Hydra has made it.
        line: The cell's line in the terminal, which is printed when it has ended.
        job_logging: Hydra's logging settings of the job, for Python's `dictConfig`.

    Raises:
        KeyboardInterrupt: If this process is interrupted; the cell's process is stopped first.
    """
    if line.repeats:
        return
    settings = resolved(config)
    if is_done(run_dir, settings):
        terminal.console().print(line.done_before())
        return
    if config.sweep.skip_not_installed and _is_skipped(config, run_dir, settings):
        terminal.console().print(line.ended(0))
        return
    limit, started = config.sweep.time_limit, time.monotonic()
    # A cell's process ends without Python's exit handlers, which remove the temporary files of the libraries.
    scratch = tempfile.TemporaryDirectory(prefix="bitsure-cell-", ignore_cleanup_errors=True)
    with gpus.assigned(config.sweep.gpus) as gpu_environment, scratch:
        # joblib's workers set another start method, which a cell's process does not know
        multiprocessing.set_start_method("forkserver", force=True)
        multiprocessing.set_forkserver_preload(["bitsure.sweep.launch.preload"])
        waited = multiprocessing.RawValue("d")
        surroundings = Surroundings(job_logging, {**os.environ, **gpu_environment}, scratch.name, waited)
        process = multiprocessing.Process(target=_run_cell, args=(config, run_dir, line, surroundings), name=run_dir.name)
        try:
            process.start()
            timed_out = not _ends_in_time(process, limit, waited)
            if timed_out:
                _stop(process, 0)
                message = f"stopped after sweep.time_limit={limit:g} seconds, waiting for other cells not counted"
                _report_failure(run_dir, settings, process, "timed out", message)
            elif process.exitcode:
                _report_failure(run_dir, settings, process, *_failure(process.exitcode))
        except KeyboardInterrupt:
            with signals_ignored():
                _stop(process, INTERRUPT_GRACE)
                _record_end(run_dir, settings, process, "failed", INTERRUPTED)
            raise
    terminal.console().print(line.ended(time.monotonic() - started))
    with suppress(OSError):
        if not (run_dir / STDERR_FILE).stat().st_size:
            (run_dir / STDERR_FILE).unlink()


def _is_skipped(config: Config, run_dir: Path, settings: dict[str, Any]) -> bool:
    """Return whether the quantizer needs a library that is not installed; status.json says then that the cell is skipped."""
    try:
        library_versions(as_quantizer(config.quant))
    except NotInstalled as error:
        write_end(run_dir, settings, os.getpid(), "skipped", str(error))
        return True
    return False


def _ends_in_time(process: BaseProcess, limit: float | None, waited: c_double) -> bool:
    """Wait until a process ends; return False if it goes on for longer than it may.

    Args:
        process: The process.
        limit: Seconds that it may take, besides those that it waits for other cells; None: any number.
        waited: Seconds that it has waited for other cells so far; the process counts them.
    """
    started = time.monotonic()
    while limit is not None and process.is_alive():
        remaining = limit + waited.value - (time.monotonic() - started)
        if remaining <= 0:
            return False
        process.join(remaining)
    process.join()
    return True


def _stop(process: BaseProcess, grace: float) -> None:
    """End a process: wait `grace` seconds for it, then ask it to end, then kill it."""
    if process.pid is None:  # it was not started
        return
    process.join(grace)
    if process.is_alive():
        process.terminate()
        process.join(GRACE)
    if process.is_alive():
        process.kill()
        process.join()


def _record_end(run_dir: Path, settings: dict[str, Any], process: BaseProcess, state: State, message: str) -> None:
    """Make sure that status.json says how a dead process ended."""
    if process.pid is None:
        return
    try:
        write_end(run_dir, settings, process.pid, state, message)
    except OSError as error:
        log.error("%s: its status cannot be written: %s", run_dir, error)


def _report_failure(run_dir: Path, settings: dict[str, Any], process: BaseProcess, state: State, message: str) -> None:
    """Record and log that a cell failed."""
    lines = [line for line in (message, *_last_lines(run_dir / STDERR_FILE)) if line]
    text = "\n".join(lines) or f"it ended with exit code {process.exitcode} and no message"
    _record_end(run_dir, settings, process, state, text)
    status = read_status(run_dir)
    if status and status.pid == process.pid and status.error:  # not where a strict verdict failed a run that is done
        log.error("%s: %s: %s", run_dir.name, status.state, status.error)
    else:
        log.error("%s: %s: %s", run_dir.name, state, text)


def _failure(exit_code: int) -> tuple[State, str]:
    """Return state and message of a process that ended with an exit code other than 0."""
    if exit_code >= 0:
        return "failed", ""  # its last lines say why
    hint = ": by someone, or by the system for want of memory" if -exit_code == signal.SIGKILL else ""
    return "killed", f"killed by the signal {signal.Signals(-exit_code).name}{hint}"


def _last_lines(path: Path) -> list[str]:
    """Return the end of a process's stderr; after a crash, what stands right before Python's report of it and its start."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return []
    crash = next((i for i, line in enumerate(lines) if line.startswith(CRASH)), None)
    return lines[-LAST_LINES:] if crash is None else lines[max(0, crash - 2) : crash + LAST_LINES]


def _run_cell(config: Config, run_dir: Path, line: CellLine, surroundings: Surroundings) -> None:
    """Run a cell; this is its process."""

    def count(seconds: float) -> None:
        surroundings.waited.value += seconds

    end_with_parent()
    os.environ.clear()
    os.environ.update(surroundings.environment)
    # TMPDIR stays: Ray finds a running cluster by it, compilers their caches, and a longer one does not fit paths of sockets.
    tempfile.tempdir = surroundings.scratch
    with suppress(OSError):
        # If memory runs out, the system ends this process, not the launcher.
        Path("/proc/self/oom_score_adj").write_text("500", encoding="utf-8")
    with (run_dir / STDERR_FILE).open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
    terminal.protect()
    begin_cell(line.name)
    faulthandler.enable(all_threads=False)
    logging.config.dictConfig(surroundings.job_logging)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from bitsure.run import pipeline

    try:
        pipeline.run(config, run_dir, line.sweep_dir.name, count, line.labels)
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        traceback.print_exc()  # where it was when it was stopped
        sys.exit(130)
