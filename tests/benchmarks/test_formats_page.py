"""The table of docs/formats.md comes from a sweep's cells."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmarks import formats_page
from benchmarks.regions import fill
from benchmarks.sweep import write_sweep
from bitsure.base.errors import UserError

TEXT = "text/pocket/harness"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two cells, scored on two tasks and on a text of seven documents; a third was skipped."""
    folder = tmp_path_factory.mktemp("formats") / "sweep"
    write_sweep(folder, 1, 2, 30, ("rtn3", "rtn8", "hqq4"))
    for cell in folder.iterdir():
        for file, numbers in (("comparison", {"kl_divergence": 0.0123, "perplexity_ratio": 1.05}), ("metrics", {"nll": 2.5})):
            results = json.loads((cell / f"{file}.json").read_text())
            usual = next(iter(results["task_0"].values()))
            results[TEXT] = {name: usual | {"value": value, "n": 7} for name, value in numbers.items()}
            (cell / f"{file}.json").write_text(json.dumps(results))
    set_state(folder, "hqq4", "skipped")
    return folder


@pytest.fixture
def sweep(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "sweep")


def set_state(sweep, quantizer, state):
    file = next(sweep.glob(f"*-{quantizer}")) / "status.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"state": state, "error": "hqq is not installed"}))


def test_a_row_has_what_the_text_and_the_tasks_say_and_most_bits_stand_first(sweep):
    lines = formats_page.lines(sweep)
    assert lines[0] == "model0: text of 7 documents, 80 questions of 2 tasks."
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| rtn")]
    assert [row[:2] for row in rows] == [["rtn8", "8.16"], ["rtn3", "3.16"]]
    header = next(line for line in lines if line.startswith("| format"))
    assert all(len(row) == header.count("|") - 1 and "" not in row for row in rows)
    assert rows[0][3].startswith("0.0123 [") and rows[0][4].startswith("1.0500 [")
    assert lines[-1] == "Skipped, because their libraries were not installed: hqq4."
    assert "\n".join(lines) in fill(formats_page.PAGE.read_text(), {"formats": lines})  # the page has a place for it


def test_one_task_or_none(sweep):
    for file in sweep.glob("*/comparison.json"):
        comparison = json.loads(file.read_text())
        left = {"rtn8": ("task_0", TEXT), "rtn3": (TEXT,)}.get(file.parent.name.split("-")[-1], ())
        file.write_text(json.dumps({task: comparison[task] for task in left}))
    rows = [line.split("|")[1:-1] for line in formats_page.lines(sweep) if line.startswith("| rtn")]
    assert [cell.strip() == "" for cell in rows[1]] == [False] * 5 + [True] * 3 and "" not in map(str.strip, rows[0])


def test_cells_that_are_not_done_or_quantize_nothing_are_refused(sweep):
    set_state(sweep, "rtn3", "failed")
    with pytest.raises(UserError, match=r"1 cells are not done, such as 0-model0-rtn3"):
        formats_page.lines(sweep)
    for quantizer in ("rtn3", "rtn8"):
        set_state(sweep, quantizer, "skipped")
    with pytest.raises(UserError, match="no cell of it quantizes a model"):
        formats_page.lines(sweep)
