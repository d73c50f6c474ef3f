"""Measure what a cell of a sweep takes besides its work: `make bench-sweep` writes it into benchmarks/sweep.md.

A real sweep of the smallest embedded model, its cells one after the other. A cell's time is from its start to the next one's;
its work is loading, quantizing and scoring, as status.json has them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from benchmarks.markdown_table import markdown_table
from bitsure import results
from bitsure.config.paths import PROJECT
from bitsure.results import Status

WORK = ("load tasks", "quantize", "compress", "score full precision", "score quantized", "noise control")
CELLS = "quant=none,rtn5,rtn4,rtn3,rtn2"
TASKS = ("pocket_recall", "pocket_stories", "pocket_reading", "pocket_weather")
COLUMNS = ("cell", "work", "check", "report", "W&B", "process and the rest", "overhead")


def run(tasks: int) -> list[float]:
    """Return the seconds under COLUMNS: medians over quantized cells whose baseline is in the store."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["model=pocket-300k", CELLS, f"task.names=[{','.join(TASKS[:tasks])}]", f"hydra.sweep.dir={folder}/sweep"]
        command = [sys.executable, str(PROJECT / "main.py"), "-m", *settings]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"BITSURE_STORE": f"{folder}/store"})
        places = sorted(Path(folder, "sweep").glob("[0-9]*"), key=lambda place: int(place.name.partition("-")[0]))
        cells = [results.read(place / "status.json", Status) for place in places]
    rows = [_row(cell, following) for cell, following in list(pairwise(cells))[1:]]
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def _row(cell: Status, following: Status) -> tuple[float, ...]:
    assert cell.started is not None and following.started is not None  # every run writes it
    total, seconds = following.started - cell.started, cell.seconds
    work = sum(seconds.get(stage, 0) for stage in WORK)
    rest = total - sum(seconds.values())
    return total, work, seconds["check"], seconds["report"], seconds["track"], rest, total - work


def table() -> str:
    """Return the table for 2 and 4 tasks of 1,000 questions, in Markdown."""
    rows = [[str(tasks), *(f"{seconds:.2f}" for seconds in run(tasks))] for tasks in (2, 4)]
    return "\n".join(markdown_table(("tasks", *COLUMNS), rows))


if __name__ == "__main__":
    print(table())
