"""Processes that end together with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Kill this process as soon as its parent has ended, however that ended.

    A worker whose parent was killed would go on using memory, processors and locks for nobody.

    Raises:
        RuntimeError: If multiprocessing did not start this process.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("end_with_parent() is for processes that multiprocessing started.")
    threading.Thread(target=_kill_after, args=(parent.sentinel,), daemon=True).start()


def _kill_after(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
