"""Commands as users type them, each in a process forked from one that has imported the libraries: that takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from bitsure.config.paths import PROJECT
from tests.builders.stopped_runs import MOST

# For each line it forks a process, which goes on as the script's own would: exit codes, tracebacks and files are real.
SERVER = """
import json, os, runpy, signal, sys
import bitsure.sweep.launch.preload

for line in sys.stdin:
    process = os.fork()
    if not process:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
else:
    sys.exit()
given = json.loads(line)
for number, name in enumerate((os.devnull, given["stdout"], given["stderr"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
os.chdir(given["cwd"])
os.environ.clear()
os.environ.update(given["environment"])
sys.argv, sys.path[0] = [given["script"], *given["arguments"]], os.path.dirname(given["script"])
signal.alarm(given["most"])
runpy.run_path(given["script"], run_name="__main__")
"""


READ_AT_START = ("PYTHON", "LC_", "HF_")  # variables that Python and the libraries read before a command's first line


class Commands:
    """Runs main.py as a shell does: forked, or by an interpreter of its own where a variable asks for that."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self.server, self.output = server, [folder / "stdout", folder / "stderr"]

    def run(
        self, *arguments: str, cwd: Path, environment: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[str]:
        """Return the exit code and the output of main.py, which ends with a signal where it takes far too long.

        Args:
            arguments: What follows main.py.
            cwd: Its working directory.
            environment: Its variables, besides those of this process.
        """
        script, (stdout, stderr) = str(PROJECT / "main.py"), map(str, self.output)
        variables = {**os.environ, **environment}
        if any(name.startswith(READ_AT_START) for name in environment):
            command = [sys.executable, script, *arguments]
            return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=MOST)
        request = {"script": script, "arguments": arguments, "cwd": str(cwd), "environment": variables, "most": int(MOST)}
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(request | {"stdout": stdout, "stderr": stderr}) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return subprocess.CompletedProcess([script, *arguments], code, *(file.read_text() for file in self.output))


@contextmanager
def command_server(folder: Path) -> Iterator[Commands]:
    """Yield what runs commands; a folder of its own is the home directory that libraries see."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"HOME": str(folder)}
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=folder, env=environment, **pipes) as server:
        yield Commands(server, folder)
