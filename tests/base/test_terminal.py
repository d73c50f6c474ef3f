"""What other processes print goes to a file, and the console's lines still to the terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.builders.stopped_runs import MOST

STARTS_A_WORKER = """
import os, subprocess, sys
from pathlib import Path
from bitsure.base import terminal
terminal.protect()
out = terminal.console()
print("before")
try:
    with terminal.descriptors_to(Path(sys.argv[1])):
        waits = "import sys; sys.stdin.read(); print('a worker, later'); sys.exit('its error')"
        worker = subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE)
        os.write(2, b"a library\\n")
        print("a logger")
        out.print("progress")
        if sys.argv[2] == "fails":
            raise ValueError
except ValueError:
    pass
worker.communicate()
out.print("after")
"""


@pytest.mark.parametrize("ends", ["well", "fails"])
def test_what_a_worker_prints_goes_to_the_log_as_long_as_it_runs(ends, tmp_path):
    command = [sys.executable, "-c", STARTS_A_WORKER, tmp_path / "log", ends]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST)
    assert (done.stdout, done.stderr) == ("before\nprogress\nafter\n", "")
    assert (tmp_path / "log").read_text().splitlines() == ["a library", "a logger", "a worker, later", "its error"]
