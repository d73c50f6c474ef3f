"""Processes that work for another one, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Let this process be killed when the one that started it is gone: without that one it would only be in the way."""
    threading.Thread(target=_kill_after, args=(multiprocessing.parent_process().sentinel,), daemon=True).start()


def _kill_after(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def helper() -> Iterator[Executor]:
    """A process beside this one that does what is submitted, one after the other; elsewhere than on Linux a thread.

    It is forked, so that it has the imports: enter the block before there are threads, locks or a GPU that it must not have.
    """
    if sys.platform != "linux":
        with ThreadPoolExecutor(1) as executor:
            yield executor
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _begin) as executor:
        executor.submit(os.getpid).result()  # it is forked now
        yield executor


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches both; the other one says what happens
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
