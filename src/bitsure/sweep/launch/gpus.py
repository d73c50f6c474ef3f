"""Give each cell of a sweep GPUs of its own, among those that the process may use."""

from __future__ import annotations

import functools
import getpass
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import filelock

log = logging.getLogger(__name__)

POLL = 0.5  # seconds


@contextmanager
def assigned(count: int | None, folder: Path | None = None) -> Iterator[dict[str, str]]:
    """Yield the environment that gives a process GPUs that no other cell of this user has until the block ends.

    A GPU is taken by a lock on a file of this machine, so it is free again when its owner dies, under every launcher. Numbers
    in CUDA_VISIBLE_DEVICES are nvidia-smi's, and CUDA_DEVICE_ORDER makes CUDA count like that; by itself it counts the fastest
    first.

    Args:
        count: How many; fewer where there are fewer. None: every process sees all, and nothing is assigned.
        folder: Where the locks are; None: in the directory for temporary files.

    Yields:
        Environment variables; none where there are no GPUs.
    """
    devices = visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if count is None or not devices:
        yield {}
        return
    folder = folder or Path(tempfile.gettempdir()) / f"bitsure-gpus-{getpass.getuser()}"
    folder.mkdir(parents=True, exist_ok=True)
    with _wait_for(devices, min(count, len(devices)), folder) as taken:
        yield {"CUDA_VISIBLE_DEVICES": ",".join(taken), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@contextmanager
def _wait_for(devices: tuple[str, ...], count: int, folder: Path) -> Iterator[list[str]]:
    while True:
        with ExitStack() as locks:  # all or none, so that two cells that want several never wait for each other
            taken = list(islice((device for device in devices if _take(folder / f"{device}.lock", locks)), count))
            if len(taken) == count:
                log.info("on the GPU %s", ", ".join(taken))
                yield taken
                return
        time.sleep(POLL)


def _take(path: Path, locks: ExitStack) -> bool:
    try:
        locks.enter_context(filelock.FileLock(path, timeout=0))
    except filelock.Timeout:
        return False
    return True


def visible(allowed: str | None) -> tuple[str, ...]:
    """Return the names of the GPUs that may be used: UUIDs where nvidia-smi knows them, as under Slurm every job has a GPU 0.

    Args:
        allowed: The value of CUDA_VISIBLE_DEVICES; None where it is not set, which allows all.
    """
    uuids = _all()
    if allowed is None:
        return tuple(uuids.values())
    return tuple(uuids.get(device, device) for device in filter(None, map(str.strip, allowed.split(","))) if device != "-1")


@functools.cache
def _all() -> dict[str, str]:
    """Return number → UUID of this machine's GPUs; none where there is no nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.split(",") for line in lines if "," in line)
    return {number.strip(): uuid.strip() for number, uuid in pairs}
