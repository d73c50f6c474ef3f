"""Processes that work for another one, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import Any


def end_with_parent() -> None:
    """Let this process be killed when the one that started it is gone: without that one it would only be in the way."""
    threading.Thread(target=_kill_after, args=(multiprocessing.parent_process().sentinel,), daemon=True).start()


def _kill_after(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


class Helper:
    """Does what is submitted, one after the other, beside the process that submits it."""

    def __init__(self, executor: Executor):
        self._executor = executor

    def submit(self, function: Callable, *arguments: Any) -> Callable[[], Any]:
        """Returns what waits for the result, or raises what the function raised; of a helper that was killed, it does the work.

        Arguments are pickled here and now: the executor would do it in a thread, beside this one that goes on using them,
        and with rows as Python objects that has ended CPython 3.11 in a segmentation fault.
        """
        pickled = pickle.dumps((function, arguments))
        try:
            asked = self._executor.submit(_call, pickled)
        except BrokenExecutor:
            return partial(_call, pickled)

        def result() -> Any:
            try:
                return asked.result()
            except BrokenExecutor:
                return _call(pickled)

        return result


@contextmanager
def helper() -> Iterator[Helper]:
    """A process beside this one; elsewhere than on Linux a thread. After an error what it has not begun is left undone.

    It is forked, so that it has the imports: enter the block before there are threads, locks or a GPU that it must not have.
    """
    if sys.platform == "linux":
        executor = ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _begin)
        executor.submit(os.getpid).result()  # it is forked now
    else:
        executor = ThreadPoolExecutor(1)
    try:
        yield Helper(executor)
    finally:
        executor.shutdown(cancel_futures=True)


def _call(pickled: bytes) -> Any:
    function, arguments = pickle.loads(pickled)  # of this process's own parent
    return function(*arguments)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches both; the other one says what happens
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
