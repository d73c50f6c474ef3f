"""What plans count besides the work is what the benchmark's page says."""

from __future__ import annotations

import pytest

from benchmarks.stored_work import ABOUT, COLUMNS, ProcessorSeconds
from benchmarks.sweep import HERE
from bitsure.config.paths import PROJECT
from bitsure.sweep.launch.estimate import SECONDS_A_CELL, SECONDS_A_RUN, SECONDS_A_SWEEP


def test_a_cell_is_what_more_cells_take_and_the_rest_is_the_commands():
    columns = dict(zip(COLUMNS, ProcessorSeconds(run=8.0, few=21.0, many=37.0).columns(), strict=True))
    assert (columns["a cell"], columns["a run besides"], columns["a sweep besides"]) == (4.0, 4.0, 13.0)


def test_plans_and_docs_have_the_seconds_of_the_page():
    lines = (HERE / "sweep.md").read_text(encoding="utf-8").partition(ABOUT)[2].splitlines()
    numbers = lines[next(i for i, line in enumerate(lines) if line.startswith("| --- |")) + 1]
    seconds = dict(zip(COLUMNS, map(float, numbers.strip("| ").split(" | ")), strict=True))
    counted = SECONDS_A_CELL, SECONDS_A_RUN, SECONDS_A_SWEEP
    assert counted == pytest.approx([seconds[name] for name in ("a cell", "a run besides", "a sweep besides")])
    documented = (PROJECT / "docs/scale.md").read_text(encoding="utf-8")
    assert f"{counted[0]} processor seconds a cell" in documented
    assert f"{counted[1]} a run or {counted[2]} a sweep" in documented
