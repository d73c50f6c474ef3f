"""A run directory: what is written when, and a status that tells how far a run came."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from bitsure.errors import UserError
from bitsure.store import write_text


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
    if (other := _running_process(path)) is not None:
        raise UserError(f"{path} is in use by a run that goes on now (process {other}). Choose another hydra.run.dir.")
    unfinished = read_status(path).get("state") in ("failed", "running")
    if (path / "records.parquet").exists() and not (unfinished and _config(path) == config):
        raise UserError(f"{path} already holds records of a run. Choose another hydra.run.dir, or remove it.")
    path.mkdir(parents=True, exist_ok=True)
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


def is_done(path: Path, config: dict) -> bool:
    """Whether a directory holds a finished run of this very config."""
    return read_status(path).get("state") == "done" and (path / "records.parquet").exists() and _config(path) == config


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


def _running_process(path: Path) -> int | None:
    """The process whose unfinished run holds a directory, if it is alive on this machine."""
    status = read_status(path)
    if status.get("state") != "running" or status.get("host") != socket.gethostname() or status.get("pid") == os.getpid():
        return None
    try:
        os.kill(status["pid"], 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's process
    return status["pid"]
