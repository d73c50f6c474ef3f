"""Which GPUs a cell of a sweep has to itself, among those that the process may use."""

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
    """The environment that gives a process as many GPUs (all there are if they are fewer), which no other cell of this user
    has until the block ends. Empty where there are none, or count is None.

    A GPU is taken by a lock on a file of this machine, so it is free again when its owner dies, and any launcher will do.
    Numbers in CUDA_VISIBLE_DEVICES are nvidia-smi's, and the process counts so, too; by itself CUDA counts the fastest first.
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


def visible(chosen: str | None) -> tuple[str, ...]:
    """The GPUs' names (UUIDs where nvidia-smi gives them), of those that CUDA_VISIBLE_DEVICES allows (None: it is not set).

    Names, not numbers: under Slurm every job may call its own GPU 0.
    """
    names = _all()
    if chosen is None:
        return tuple(names.values())
    return tuple(names.get(one, one) for one in filter(None, map(str.strip, chosen.split(","))) if one != "-1")


@functools.cache
def _all() -> dict[str, str]:
    """Number → UUID of this machine's GPUs; none where there is no nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(map(str.strip, line.split(",")) for line in lines if "," in line)
