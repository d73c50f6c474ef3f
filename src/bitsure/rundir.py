"""A run directory: what is written when, and a status that tells how far a run came."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
def open_run(path: Path) -> Iterator[RunDirectory]:
    """A directory for one run: done when the block ends, failed when it raises, Ctrl-C included.

    Raises UserError if the directory already holds records: a result is never overwritten.
    """
    if (path / "records.parquet").exists():
        raise UserError(f"{path} already holds records of a run. Choose another hydra.run.dir, or remove it.")
    if (other := _running_process(path)) is not None:
        raise UserError(f"{path} is in use by a run that goes on now (process {other}). Choose another hydra.run.dir.")
    path.mkdir(parents=True, exist_ok=True)
    run = RunDirectory(path)
    run._write_status()
    try:
        yield run
    except BaseException as error:
        message = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        run._write_status(state="failed", error=message)
        raise
    run._write_status(state="done", stage=None)


def _running_process(path: Path) -> int | None:
    """The process whose unfinished run holds a directory, if it is alive on this machine."""
    try:
        status = json.loads((path / "status.json").read_text())
    except (OSError, ValueError):
        return None
    if status.get("state") != "running" or status.get("host") != socket.gethostname() or status.get("pid") == os.getpid():
        return None
    try:
        os.kill(status["pid"], 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's process
    return status["pid"]
