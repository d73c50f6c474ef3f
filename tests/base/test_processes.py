"""A process that ends with the one that started it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from bitsure.base.processes import end_with_parent
from tests.builders.stopped_runs import MOST

PARENT = """
import multiprocessing, os, signal, time
from bitsure.base.processes import end_with_parent

def work(ready):
    end_with_parent()
    ready.set()
    time.sleep(600)

context = multiprocessing.get_context("fork")
ready = context.Event()
child = context.Process(target=work, args=(ready,))
child.start()
ready.wait()
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_ends_with_a_parent_that_is_killed():
    parent = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, timeout=MOST)
    assert parent.returncode == -9
    with suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(parent.stdout))
        if child.status() != psutil.STATUS_ZOMBIE:
            child.wait(timeout=MOST)


def test_a_process_without_such_a_parent_is_refused():
    with pytest.raises(RuntimeError, match="multiprocessing"):
        end_with_parent()
