"""The one line of a sweep's cell: its place, what it is, its result, the time it took and the time that is left."""

from __future__ import annotations

import os
import time

import pytest

from bitsure.results import Labels, Status, SweepPlan, write
from bitsure.results.run_files import PlannedCell
from bitsure.results.verdict import MarginVerdict, Verdict
from bitsure.sweep.launch.cell_line import cell_line
from bitsure.sweep.report.cell_results import read_cells

ASKED = Labels(model="a/final", quantizer="w4a8kv4")


@pytest.fixture
def sweep(tmp_path):
    """Return the folder of a sweep of three cells, whose command began a minute ago."""
    overrides = [["model=local", "quant=w4a8kv4", f"task.limit={limit}"] for limit in (5, 6, 7)]
    cells = [PlannedCell(directory=str(i), overrides=each, name="final rtn4", labels=ASKED) for i, each in enumerate(overrides)]
    write(tmp_path / "plan.json", SweepPlan(cells=cells))
    os.utime(tmp_path / "plan.json", (time.time() - 60,) * 2)
    for i in range(3):
        (tmp_path / str(i)).mkdir()
    return tmp_path


def end(sweep, number: int, state: str, started: float) -> None:
    write(sweep / str(number) / "status.json", Status(state=state, started=started))


def test_a_line_has_the_cells_place_labels_setting_and_the_time_left(sweep):
    line = cell_line(sweep / "1", sweep, Labels(model="final", quantizer="rtn4"))
    assert line.name == "cell 2 of 3: a/final, w4a8kv4, task.limit=6"
    end(sweep, 0, "done", time.time() - 10**6)  # before this command
    end(sweep, 1, "done", time.time() - 30)
    assert line.ended(3725).plain == f"{line.name}: done; 1:02:05, about 0:01:00 left for the sweep"
    end(sweep, 2, "failed", time.time() - 10)
    assert cell_line(sweep / "2", sweep, ASKED).ended(9).plain == "cell 3 of 3: a/final, w4a8kv4, task.limit=7: failed; 0:00:09"
    assert line.done_before().plain == f"{line.name}: done before"


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("inferior", "surely worse in negative log-likelihood"),
        ("undecided", "undecided: negative log-likelihood"),
        ("non-inferior", "non-inferior"),
    ],
)
def test_the_result_names_the_metrics_that_decided(sweep, verdict, words):
    fine = MarginVerdict(verdict="non-inferior", loss=0.0, ci_low=0.0, ci_high=0.0, margin=0.01, n=600)
    margins = {"accuracy": fine, "nll": fine.model_copy(update={"verdict": verdict})}
    judged = Verdict(verdict=verdict, margins=margins, strict=False, level=0.95, noise_control=None, tasks={})
    end(sweep, 0, "done", time.time())
    write(sweep / "0" / "verdict.json", judged)
    assert (
        cell_line(sweep / "0", sweep, ASKED)
        .ended(9)
        .plain.startswith(f"cell 1 of 3: a/final, w4a8kv4, task.limit=5: {words}; ")
    )


def test_a_cell_that_was_interrupted_is_called_stopped(sweep):
    write(sweep / "2" / "status.json", Status(state="failed", error="interrupted"))
    assert cell_line(sweep / "2", sweep, ASKED).ended(9).plain.endswith(": stopped; 0:00:09")
    [*_, cell] = read_cells(sweep)
    assert (cell.state, cell.state_in_words) == ("failed", "stopped")


def test_without_a_plan_a_cell_goes_by_its_directory(tmp_path):
    (tmp_path / "0-local").mkdir()
    assert cell_line(tmp_path / "0-local", tmp_path, ASKED).ended(1).plain == "0-local: a/final, w4a8kv4: failed; 0:00:01"
