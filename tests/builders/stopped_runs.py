"""What must hold of runs that are stopped, and waiting for them without a fixed time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bitsure.results import Status
from bitsure.run.directory import read_status

T = TypeVar("T")
MOST = 900  # seconds after which a command hangs; a busy machine takes its time
# stops a run when it has scored some batches of its second task, until it is killed
PAUSE_AMID_SLOW = """
import os, time
from pathlib import Path
from bitsure.scoring.journal import Journal
append = Journal.append
def paused(self, scored):
    append(self, scored)
    records = Path(os.environ["BITSURE_STORE"], "records")
    if self.path is not None and any(records.glob("[!.]*/manifest.json")):
        Path("paused").touch()
        time.sleep(3600)
Journal.append = paused
"""


def wait_until(condition: Callable[[], T], what: str) -> T:
    """Return the condition's first true value; fail only after far more time than it can take."""
    deadline = time.monotonic() + MOST
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"still not so after {MOST:g} seconds: {what}")


def is_alive(process: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def check_status(run_dir: Path, *states: str) -> Status:
    """Return a directory's status, which must say whose it is, since when, and why it ended unless it is done."""
    status = read_status(run_dir)
    assert status is not None and status.state in states, status
    assert status.host and status.pid and status.started, status
    assert bool(status.error) == (status.state not in ("done", "running")), status
    return status


def python_path(folder: Path) -> str:
    """Return PYTHONPATH with a folder in front, whose sitecustomize.py a new process runs first."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
