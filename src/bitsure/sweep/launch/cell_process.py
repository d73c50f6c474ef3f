"""The cells of a sweep, each in a process of its own: no end of one, however hard, is the end of the others.

It is the task that starts the process, not the launcher, so it holds for every launcher. Processes are forked from a server
that has imported the libraries and run none of them, so that one costs milliseconds and not the seconds of the imports.
"""

from __future__ import annotations

import faulthandler
import logging
import logging.config
import multiprocessing
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from ctypes import c_double
from pathlib import Path

from bitsure.base import store
from bitsure.base.errors import UserError
from bitsure.base.processes import end_with_parent
from bitsure.config.schema import Config, resolved
from bitsure.run.directory import end_for, is_done, read_status
from bitsure.sweep.launch import gpus

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds to end in, after having been asked to
ERRORS = "stderr.log"
LAST_LINES = 5
CRASH = "Fatal Python error"  # of faulthandler


def run(config: Config, run_dir: Path, sweep: str, job_logging: dict) -> None:
    """Run a cell in a process of its own, unless it is done; job_logging: for Python's `dictConfig`.

    However that process ends, the directory's status.json says it; what went wrong is logged, not raised, but for Ctrl-C.
    """
    if is_done(run_dir, resolved(config)):
        print(f"{run_dir} is done: nothing to do")
        return
    with gpus.assigned(config.sweep.gpus) as chosen:
        multiprocessing.set_start_method("forkserver", force=True)  # joblib's workers have another, which a cell does not know
        multiprocessing.set_forkserver_preload(["bitsure.sweep.launch.preload"])
        waited = multiprocessing.RawValue("d")
        arguments = (config, run_dir, sweep, job_logging, {**os.environ, **chosen}, waited)
        process = multiprocessing.Process(target=_cell, args=arguments, name=run_dir.name)
        process.start()
        try:
            timed_out = not _ends_in_time(process, config.sweep.time_limit, waited)
        except KeyboardInterrupt:
            process.join(1)  # a terminal's Ctrl-C has reached it, too
            _stop(process)
            raise
        if timed_out:
            _stop(process)
    if timed_out or process.exitcode:
        _record(run_dir, process, config.sweep.time_limit if timed_out else None)
    with suppress(OSError):
        if not (run_dir / ERRORS).stat().st_size:
            (run_dir / ERRORS).unlink()


def _ends_in_time(process: multiprocessing.Process, limit: float | None, waited: c_double) -> bool:
    """Wait for a process to end; False if it goes on after `limit` seconds and those that it `waited` for other cells."""
    begun = time.monotonic()
    while limit is not None and process.is_alive():
        left = limit + waited.value - (time.monotonic() - begun)
        if left <= 0:
            return False
        process.join(left)
    process.join()
    return True


def _stop(process: multiprocessing.Process) -> None:
    """Ask it to end, then make it."""
    if process.is_alive():
        process.terminate()
        process.join(GRACE)
    if process.is_alive():
        process.kill()
        process.join()


def _record(run_dir: Path, process: multiprocessing.Process, time_limit: float | None) -> None:
    """See to it that status.json tells of the failure, and say it."""
    state, error = _how_it_ended(process.exitcode, time_limit)
    said = "\n".join([error, *_last_lines(run_dir / ERRORS)] if error else _last_lines(run_dir / ERRORS))
    try:
        end_for(run_dir, process.pid, state, said)
    except OSError as full:
        log.error("%s: its status cannot be written: %s", run_dir, full)
    status = read_status(run_dir)
    if status.get("pid") == process.pid and status["state"] != "done":  # done: its verdict is not good enough
        state, said = status["state"], status["error"]
    log.error("%s: %s: %s", run_dir.name, state, said)


def _how_it_ended(code: int, time_limit: float | None) -> tuple[str, str]:
    if time_limit is not None:
        return (
            "timed out",
            f"stopped after sweep.time_limit={time_limit:g} seconds, waiting for other cells not counted",
        )
    if code < 0:
        hint = ": by someone, or by the system for want of memory" if -code == signal.SIGKILL else ""
        return "killed", f"killed by the signal {signal.Signals(-code).name}{hint}"
    return "failed", ""


def _last_lines(path: Path) -> list[str]:
    """The end of what a process said; of a crash, what was said just before it, and where Python says it was."""
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []
    crash = next((i for i, line in enumerate(lines) if line.startswith(CRASH)), None)
    return lines[-LAST_LINES:] if crash is None else lines[max(0, crash - 2) : crash + LAST_LINES]


def _cell(config: Config, run_dir: Path, sweep: str, job_logging: dict, environment: dict[str, str], waited: c_double) -> None:
    """The process of a cell. waited: where it tells the seconds that it waits for other cells."""

    def count(seconds: float) -> None:
        waited.value += seconds

    end_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # where memory runs out, this one goes and not the launcher
    with (run_dir / ERRORS).open("w") as file:
        os.dup2(file.fileno(), 2)
    faulthandler.enable(all_threads=False)
    logging.config.dictConfig(job_logging)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from bitsure.run import pipeline

    try:
        with store.waits_reported_to(count):
            pipeline.run(config, run_dir, sweep)
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        traceback.print_exc()  # where it was when its time was over
        sys.exit(130)
