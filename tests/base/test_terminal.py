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


def test_a_bar_that_still_writes_when_stdout_is_back_does_not_fail(tmp_path):
    code = """
import sys
from pathlib import Path
from bitsure.base import terminal
out = terminal.console()
with terminal.descriptors_to(Path(sys.argv[1])):
    stream = out.file
stream.write("late\\n")
stream.flush()
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "log"], capture_output=True, text=True, timeout=MOST)
    assert (done.stdout, done.stderr) == ("late\n", "")


PRINTS_NOWHERE = """
import os, sys
from pathlib import Path
from bitsure.base import terminal
terminal.protect()
file = open(sys.argv[2], "w")  # whose descriptor would be stdout's
terminal.console().print("progress")
print("an error", file=sys.stderr)
with terminal.descriptors_to(Path(sys.argv[1])):
    os.system("echo a worker; echo its error >&2")
    terminal.console().print("more")
os.system("echo after")
"""


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&- 2>&-", ">&-"])
def test_a_process_without_stdout_prints_nowhere(closed, tmp_path):
    python = [sys.executable, "-c", PRINTS_NOWHERE, tmp_path / "log", tmp_path / "file"]
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *python], capture_output=True, text=True, timeout=MOST)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == ("an error\n" if closed == ">&-" else "")
    assert (tmp_path / "log").read_text() == "a worker\nits error\n"
    assert (tmp_path / "file").read_text() == ""
