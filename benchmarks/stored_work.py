"""Measure what processors take for a command whose work is in the store: `make bench-sweep` writes it into benchmarks/sweep.md.

It runs one cell, a sweep of 2 cells and a sweep of 6, whose weights and records a sweep before them made. Plans add these
seconds to the time of the work (src/bitsure/sweep/launch/estimate.py).
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import NamedTuple

from benchmarks.markdown_table import markdown_table
from bitsure.config.paths import PROJECT

MODEL, FEW, MANY = "model=pocket-300k", ("rtn4", "rtn3"), ("rtn8", "rtn6", "rtn5", "rtn4", "rtn3", "rtn2")
ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of Linux: the server that forks cells outlives the command
ABOUT = (
    "Processor seconds of commands whose work is in the store, all processes together (`python -m benchmarks.stored_work`): "
    "pocket-300k quantized by rounding, four tasks of 1,000 questions; loading models and tasks is counted. A cell is a "
    "quarter of what 6 cells take more than 2. The last two columns are the rest of a run and of a sweep. "
    "Plans count the last three."
)
COLUMNS = ("a run of one cell", "a sweep of 2", "a sweep of 6", "a cell", "a run besides", "a sweep besides")


class ProcessorSeconds(NamedTuple):
    """What commands of four tasks of 1,000 questions a cell take of all processors together, seconds."""

    run: float
    few: float
    """Of a sweep of 2 cells."""
    many: float
    """Of a sweep of 6 cells."""

    @property
    def cell(self) -> float:
        """One more cell."""
        return (self.many - self.few) / (len(MANY) - len(FEW))

    def columns(self) -> tuple[float, ...]:
        """Return the seconds under COLUMNS."""
        return *self, self.cell, self.run - self.cell, self.few - len(FEW) * self.cell


def measure() -> ProcessorSeconds:
    """Fill a store with the work of all cells, then run the three commands on it."""
    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1)
    with tempfile.TemporaryDirectory() as folder:
        _run(folder, "filled", MANY)
        return ProcessorSeconds(*(_run(folder, f"of-{len(names)}", names) for names in (FEW[:1], FEW, MANY)))


def _run(folder: str, name: str, quantizers: tuple[str, ...]) -> float:
    """Run one command; return the processor seconds of all its processes."""
    sweeps, kind = (["-m"], "sweep") if len(quantizers) > 1 else ([], "run")
    settings = [MODEL, f"quant={','.join(quantizers)}", f"hydra.{kind}.dir={folder}/{name}"]
    command, before = [sys.executable, str(PROJECT / "main.py"), *sweeps, *settings], _used()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"BITSURE_STORE": f"{folder}/store"})
    with suppress(ChildProcessError):  # none is left
        while True:
            os.wait()
    return _used() - before


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table() -> str:
    """Return the table in Markdown."""
    return "\n".join(markdown_table(COLUMNS, [[f"{seconds:.1f}" for seconds in measure().columns()]]))


if __name__ == "__main__":
    print(table())
