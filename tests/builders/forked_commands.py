"""Commands as users type them, each in a process forked from one that has imported the libraries: that takes seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from bitsure.config.paths import PROJECT
from tests.builders.pictures import BLANK
from tests.builders.stopped_runs import MOST

# For each line it forks a process, which goes on as the script's own would: exit codes, tracebacks and files are real.
# A sweep's cells are forked from such a process too, by multiprocessing's own server.
SERVER = """
import atexit, json, os, signal, socket, sys
from multiprocessing import connection, forkserver
import bitsure.sweep.launch.preload
import hydra.main
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from wandb.sdk.data_types._private import MEDIA_TMP

Plugins.instance()
OverridesParser.create().parse_overrides(["a.b=[1,c]", "d=e,f"])


def serve_cells(before):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(connection.arbitrary_address("AF_UNIX"))
    listener.listen()
    is_alive, alive = os.pipe()
    process = os.fork()
    if not process:
        os.close(alive)
        try:
            exec(before, {"__name__": "in_cells"})
            forkserver.main(listener.fileno(), is_alive, [])
        finally:
            os._exit(0)
    server = forkserver._forkserver
    server._forkserver_address, server._forkserver_alive_fd = listener.getsockname(), alive
    server._forkserver_pid = process


for line in sys.stdin:
    process = os.fork()
    if not process:
        break
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
else:
    sys.exit()
given = json.loads(line)
atexit.unregister(MEDIA_TMP.cleanup)  # the folder of all commands
MEDIA_TMP._finalizer.detach()
for number, name in enumerate((os.devnull, given["stdout"], given["stderr"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
os.setsid()  # a process group of its own, as a terminal's command has
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
os.chdir(given["cwd"])
os.environ.clear()
os.environ.update(given["environment"])
sys.argv, sys.path[0] = given["arguments"], given["path"]
signal.alarm(given["most"])
exec(given["first"])
if "-m" in sys.argv:
    serve_cells(given["in_cells"])
exec(given["program"], {"__name__": "__main__"})
"""
MAIN = PROJECT / "main.py"
RUN_MAIN = f"\nimport runpy\nrunpy.run_path({str(MAIN)!r}, run_name='__main__')\n"
RUN_MODULE = "import runpy\nrunpy.run_module({!r}, run_name='__main__', alter_sys=True)\n"
ERRORS = "server"  # what the server itself writes to stderr
READ_AT_START = ("PYTHON", "LC_", "HF_")  # variables that Python and the libraries read before a command's first line


class Running:
    """A command that was started; `wait` before the next one."""

    def __init__(self, server: subprocess.Popen[str], output: list[Path]) -> None:
        self.server, self.output = server, output
        self.code: int | None = None
        self.pid = self._number()

    def _number(self) -> int:
        assert self.server.stdout
        return int(self.server.stdout.readline())

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Return its exit code and output, once it has ended."""
        if self.code is None:
            self.code = self._number()
        return subprocess.CompletedProcess(["main.py"], self.code, *(file.read_text() for file in self.output))

    def stop(self) -> None:
        """Kill it, unless it has ended."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


class Commands:
    """Runs main.py as a shell does: forked, or by an interpreter of its own where a variable asks for that."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self.server, self.folder = server, folder

    def run(
        self,
        *arguments: str,
        cwd: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
        before: str = "",
        pictures: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Return the exit code and the output of main.py, which ends with a signal where it takes far too long.

        Args:
            arguments: What follows main.py.
            cwd: Its working directory.
            environment: Its variables, besides those of this process.
            before: A program that its process runs first.
            pictures: Whether pictures are drawn; they are blank otherwise.
        """
        if any(name.startswith(READ_AT_START) for name in environment):
            command, variables = [sys.executable, str(MAIN), *arguments], {**os.environ, **environment}
            return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=MOST)
        given = [str(MAIN), *arguments]
        return self._start(before + RUN_MAIN, given, cwd, environment, path=str(PROJECT), pictures=pictures).wait()

    def start(self, *arguments: str, cwd: Path, environment: Mapping[str, str], in_cells: str = "") -> Running:
        """Start main.py in a process group of its own; a sweep's cells run the program `in_cells` first."""
        given = [str(MAIN), *arguments]
        return self._start(RUN_MAIN, given, cwd, environment, in_cells, path=str(PROJECT))

    def run_python(self, folder: Path, *arguments: str) -> str:
        """Return what Python prints in a folder, which must end well: `-c PROGRAM …` or `-m MODULE …`."""
        option, name, *rest = arguments
        program = name if option == "-c" else RUN_MODULE.format(name)
        done = self._start(program, [option.replace("-m", name), *rest], folder, path=str(folder)).wait()
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _start(
        self,
        program: str,
        arguments: list[str],
        cwd: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
        in_cells: str = "",
        *,
        path: str,
        pictures: bool = False,
    ) -> Running:
        output = [self.folder / "stdout", self.folder / "stderr"]
        request = {"program": program, "in_cells": in_cells, "arguments": arguments, "path": path, "cwd": str(cwd)}
        request["first"] = "" if pictures else BLANK
        variables = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # that of this process
        request |= {"environment": {**variables, **environment}, "most": int(MOST)}
        request |= {file.name: str(file) for file in output}
        assert self.server.stdin
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return Running(self.server, output)


@contextmanager
def command_server(folder: Path) -> Iterator[Commands]:
    """Yield what runs commands; a folder of its own is the home directory that libraries see."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # OpenBLAS starts its threads anew in a fork
    environment = os.environ | {"HOME": str(folder)} | one_thread
    with (
        (folder / ERRORS).open("w") as errors,
        subprocess.Popen([sys.executable, "-c", SERVER], cwd=folder, env=environment, stderr=errors, **pipes) as server,
    ):
        yield Commands(server, folder)
