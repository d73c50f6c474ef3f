"""A process that works beside another one, and what becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from bitsure.base import processes


def whose(numbers: list[int]) -> tuple[int, int]:
    return os.getpid(), sum(numbers)


def fails() -> None:
    raise ValueError("no such picture")


def test_it_works_in_another_process_and_in_order():
    numbers = [1, 2]
    with processes.helper() as helper:
        asked = helper.submit(whose, numbers)
        numbers.append(100)  # too late: it was taken as it was
        (one, total), (other, _) = asked(), helper.submit(whose, [])()
    assert total == 3
    assert one == other != os.getpid()
    assert not psutil.pid_exists(one)


def test_what_goes_wrong_there_is_raised_here():
    with processes.helper() as helper:
        asked = helper.submit(fails)
        with pytest.raises(ValueError, match="no such picture"):
            asked()
        assert helper.submit(whose, [1])()[1] == 1  # it goes on


def test_it_ends_with_a_process_that_is_killed(tmp_path):
    script = f"""
import os, signal
from bitsure import processes
from tests.base.test_processes import whose
with processes.helper() as helper:
    open({str(tmp_path / "pid")!r}, "w").write(str(helper.submit(whose, [])()[0]))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == -9
    pid, until = int((tmp_path / "pid").read_text()), time.monotonic() + 20
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_the_work_of_a_helper_that_is_killed_is_done_here():
    with processes.helper() as helper:
        pid = helper.submit(whose, [])()[0]
        os.kill(pid, signal.SIGKILL)
        assert helper.submit(whose, [4])() == (os.getpid(), 4)
        assert helper.submit(whose, [5])() == (os.getpid(), 5)
