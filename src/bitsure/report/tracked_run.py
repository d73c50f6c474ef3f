"""Where a directory's W&B run is: pages link to it, also when they are made again."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from pathlib import Path

RUN_FILE = "wandb/run.json"  # in the directory of a run or a sweep, beside W&B's own files
ADDRESS = ("https://", "http://")  # how addresses begin, those of one's own W&B server too
OFFLINE = "wandb/offline-run-*"  # folders of runs that were not sent when they were logged


def tracked_at(directory: Path) -> str | None:
    """Return the address of a directory's W&B run, or the command that sends it if it was logged offline.

    Args:
        directory: A run's or a sweep's directory.

    Returns:
        The address, the command, or None where nothing was logged, or by a version that did not keep the address.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        address = str(json.loads((directory / RUN_FILE).read_text(encoding="utf-8"))["url"])
        if address.startswith(ADDRESS):
            return address
    offline = sorted(directory.glob(OFFLINE))
    return f"wandb sync {shlex.quote(str(offline[-1].absolute()))}" if offline else None
