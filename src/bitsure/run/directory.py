"""A run's directory: its files, each written whole or not at all, and a status that says how far the run came."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import yaml

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.base.files import disk_errors, make_writable, write_text
from bitsure.base.out_of_memory import memory_errors
from bitsure.base.progress import working
from bitsure.base.signals import signals_ignored
from bitsure.config.run_config import read_run_config
from bitsure.results import Status
from bitsure.results.run_files import INTERRUPTED, State
from bitsure.results.run_results import results_are_whole

MOST_NAMED = 4  # settings in an error message
BROKEN_OFF = ("failed", "killed", "timed out")


class RunDirectory:
    """Writes a run's files and keeps status.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._status = _new_status("running", os.getpid())

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file. Raises ValueError for a number that is not finite."""
        results.write(self.path / name, value)

    def warn(self, message: str) -> None:
        """Say in status.json what is missing although the run goes on."""
        self._write_status(warning=message)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the run; status.json names the stage while it runs.

        Raises:
            UserError: If memory runs out.
        """
        started = time.monotonic()
        self._write_status(stage=name)
        try:
            with memory_errors(f"running the stage {name!r}"), working(name):
                yield
        finally:
            seconds = self._status.seconds.get(name, 0) + time.monotonic() - started
            self._status = self._status.model_copy(update={"seconds": {**self._status.seconds, name: round(seconds, 3)}})

    def _write_status(self, **changes: object) -> None:
        self._status = self._status.model_copy(update=changes)
        self.write_json("status.json", self._status)


@contextmanager
def open_run(path: Path, config: dict[str, Any]) -> Iterator[RunDirectory]:
    """Yield the directory of one run. Its status is done when the block ends, and failed when the block raises.

    A run of the same config that did not finish is taken over.

    Args:
        path: The directory; it is made if it does not exist.
        config: The resolved settings, which become config.yaml.

    Raises:
        UserError: If the directory holds another run's records or a run that is still going on, or cannot be written.
    """
    make_writable(path)
    try:
        lock = filelock.FileLock(path / ".lock", timeout=0).acquire()
    except filelock.Timeout:
        other = read_status(path)
        raise UserError(
            f"{path} is in use by a run that goes on now (process {other.pid if other else 'unknown'}). "
            "Choose another hydra.run.dir."
        ) from None
    with lock:
        if why := why_not_here(path, config):
            raise UserError(why)
        run = RunDirectory(path)
        try:  # the first status is written inside, so that a run that is stopped right after it says so
            run._write_status()
            write_text(path / "config.yaml", yaml.safe_dump(config, sort_keys=False))
            with disk_errors(path):
                yield run
        except BaseException as error:
            message = INTERRUPTED if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            with signals_ignored(), suppress(OSError):  # of a full disk, which may be why the run failed
                run._write_status(state="failed", error=message)
            raise
        run._write_status(state="done", stage=None)


def why_not_here(path: Path, config: dict[str, Any]) -> str | None:
    """Return why a run may not use a directory: it holds another run's records, or a finished run's. None if it may."""
    if (path / "records.parquet").exists() and (_config(path) != config or is_done(path, config)):
        return (
            f"{path} already holds records of a run{_differing(_config(path), config)}. "
            "Choose another hydra.run.dir (of a sweep: hydra.sweep.dir), or remove it."
        )
    return None


def _differing(before: dict[str, Any] | None, config: dict[str, Any]) -> str:
    """Return the settings in which two configs differ, as part of a sentence."""
    names = [
        f"{group}.{key}"
        for group, values in config.items()
        if isinstance(values, dict) and isinstance(known := (before or {}).get(group), dict)
        for key in {**known, **values}
        if known.get(key) != values.get(key)
    ]
    return f" with another {', '.join(names[:MOST_NAMED])}{' …' if len(names) > MOST_NAMED else ''}" if names else ""


def write_end(path: Path, config: dict[str, Any], pid: int, state: State, error: str) -> None:
    """Write the end of a run whose process is dead and may not have been able to write it.

    Nothing is written where the directory is another run's, where a run is done, or where the process itself wrote why it
    failed. A status of an earlier process of the same run is replaced: it says nothing of this one.

    Args:
        path: The run's directory.
        config: The run's resolved settings.
        pid: The process that is dead.
        state: `failed`, `killed` or `timed out`.
        error: What went wrong.
    """
    with ExitStack() as stack:
        status = read_status(path)
        try:
            stack.enter_context(filelock.FileLock(path / ".lock", timeout=0).acquire())
        except filelock.Timeout:
            if status is None or status.pid != pid:
                return
        if status is not None and (status.state == "done" or _config(path) not in (None, config)):
            return
        if status is None or status.pid != pid:
            status = _new_status(state, pid)
        elif status.state == "failed" == state and status.error:
            return
        results.write(path / "status.json", status.model_copy(update={"state": state, "error": error}))


def is_done(path: Path, config: dict[str, Any]) -> bool:
    """Return whether a directory holds a finished run of exactly this config, all of whose results can be read."""
    status = read_status(path)
    if status is None or status.state != "done" or _config(path) != config:
        return False
    return _is_whole(path / "records.parquet") and results_are_whole(path)


def read_status(path: Path) -> Status | None:
    """Return status.json of a directory; None where there is none that can be read."""
    try:
        return results.read_if_there(path / "status.json", Status)
    except UserError:
        return None


def _new_status(state: State, pid: int) -> Status:
    return Status(state=state, host=socket.gethostname(), pid=pid, started=time.time(), error=None, seconds={})


def _is_whole(parquet: Path) -> bool:
    """Return whether a Parquet file is there and has the marker at its end."""
    try:
        with parquet.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            return file.read() == b"PAR1"
    except OSError:
        return False


def _config(path: Path) -> dict[str, Any] | None:
    try:
        return read_run_config(path / "config.yaml")
    except UserError:
        return None
