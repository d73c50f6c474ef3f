"""A run directory: what is written when, and a status that tells how far a run came."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import yaml

from bitsure.base.errors import UserError
from bitsure.base.files import write_text

MOST_NAMED = 4  # settings in an error
BROKEN_OFF = ("failed", "killed", "timed out")
UNFINISHED = ("running", *BROKEN_OFF)  # states of a run that may be taken up again


class RunDirectory:
    """Writes a run's files, each whole or not at all, and keeps status.json."""

    def __init__(self, path: Path):
        self.path = path
        self._status = {"state": "running", "host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
        self._status |= {"error": None, "seconds": {}}

    def write_json(self, name: str, value: object) -> None:
        write_text(self.path / name, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; status.json names it while it runs."""
        started = time.monotonic()
        self._write_status(stage=name)
        try:
            yield
        finally:
            self._status["seconds"][name] = round(self._status["seconds"].get(name, 0) + time.monotonic() - started, 3)

    def _write_status(self, **changes: object) -> None:
        self._status |= changes
        self.write_json("status.json", self._status)


@contextmanager
def open_run(path: Path, config: dict) -> Iterator[RunDirectory]:
    """A directory for one run: done when the block ends, failed when it raises, Ctrl-C included.

    A run of the same config that did not come to its end is taken over. Raises UserError if the directory holds another
    run's records (a result is never overwritten) or a run that goes on.
    """
    path.mkdir(parents=True, exist_ok=True)
    try:
        held = filelock.FileLock(path / ".lock", timeout=0).acquire()
    except filelock.Timeout:
        other = read_status(path).get("pid", "unknown")
        raise UserError(
            f"{path} is in use by a run that goes on now (process {other}). Choose another hydra.run.dir."
        ) from None
    with held:
        if why := why_not_here(path, config):
            raise UserError(why)
        run = RunDirectory(path)
        run._write_status()
        write_text(path / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        try:
            yield run
        except BaseException as error:
            message = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            run._write_status(state="failed", error=message)
            raise
        run._write_status(state="done", stage=None)


def why_not_here(path: Path, config: dict) -> str | None:
    """Why a run of that config may not use a directory: it holds another one's records, or a finished run's."""
    unfinished = read_status(path).get("state") in UNFINISHED or not _whole(path / "records.parquet")
    if (path / "records.parquet").exists() and not (unfinished and _config(path) == config):
        return (
            f"{path} already holds records of a run{_differing(_config(path), config)}. "
            "Choose another hydra.run.dir (of a sweep: hydra.sweep.dir), or remove it."
        )
    return None


def _differing(before: dict | None, config: dict) -> str:
    """In which settings two configs differ, as part of a sentence."""
    names = [
        f"{group}.{key}"
        for group, values in config.items()
        if isinstance(values, dict) and isinstance(known := (before or {}).get(group), dict)
        for key, value in values.items()
        if key in known and known[key] != value
    ]
    return f" with another {', '.join(names[:MOST_NAMED])}{' …' if len(names) > MOST_NAMED else ''}" if names else ""


def end_for(path: Path, pid: int, state: str, error: str) -> None:
    """Write the end of a run whose process did not live to do it, or was stopped; nothing if the run is not its own."""
    status = read_status(path)
    if status.get("pid", pid) != pid or status.get("state") == "done" or (status.get("state"), state) == ("failed", "failed"):
        return
    run = RunDirectory(path)
    run._write_status(**{"seconds": {}} | status | {"pid": pid, "state": state, "error": error})


def is_done(path: Path, config: dict) -> bool:
    """Whether a directory holds a finished run of this very config."""
    return read_status(path).get("state") == "done" and _whole(path / "records.parquet") and _config(path) == config


def _whole(parquet: Path) -> bool:
    """Whether a Parquet file is there to its end, which says so."""
    try:
        with parquet.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            return file.read() == b"PAR1"
    except OSError:
        return False


def read_status(path: Path) -> dict:
    """status.json of a directory; empty where there is none that can be read."""
    try:
        return json.loads((path / "status.json").read_text())
    except (OSError, ValueError):
        return {}


def _config(path: Path) -> dict | None:
    try:
        return yaml.safe_load((path / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return None
