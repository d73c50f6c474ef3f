"""Places that cannot be written, and a locale that is not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
POCKET = ["model=pocket-300k", "task.names=[pocket_recall]", "task.limit=6", "metric.resamples=100", "tracking.mode=disabled"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["hydra.run.dir=file/run"],
        ["-m", "quant=rtn2,rtn3", "hydra.sweep.dir=file/sweep"],
        ["paths.store=file", "hydra.run.dir=run"],
    ],
)
def test_a_file_in_the_place_of_a_folder_is_one_sentence(bitsure, tmp_path, arguments):
    (tmp_path / "file").write_text("mine")
    done = bitsure(*arguments, *POCKET)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    error = done.stderr.strip().splitlines()[-1]
    assert "file" in error and ": Not a directory. Make it a directory that may be read and written, or choose" in error
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("program", ["main.py", "report"])
def test_names_that_this_locale_cannot_read_are_one_sentence(bitsure, tmp_path, monkeypatch, program):
    if program == "main.py":
        done = bitsure("model=local", "model.path='m\u00f6del'", environment=ASCII)
    else:
        command = [sys.executable, "-c", "from bitsure.cli import main; main()", "report", "l\u00e4ufe"]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | ASCII, capture_output=True, text=True)
    error = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(error) == 1 and "in this locale Python reads names as ascii" in error[0]
    assert "PYTHONUTF8=1" in error[0]


@pytest.mark.slow
def test_a_sweep_and_its_report_need_no_utf_8_locale(bitsure, tmp_path):
    done = bitsure("-m", *POCKET, "quant=rtn3,none", "hydra.sweep.dir=sweep", environment=ASCII)
    assert done.returncode == 0 and "2 cells: 2 done" in done.stdout, done.stderr
    for cell in ("0-pocket-300k-rtn3", "1-pocket-300k-none"):
        assert json.loads((tmp_path / "sweep" / cell / "status.json").read_text())["state"] == "done"
        assert "–" in (tmp_path / "sweep" / cell / "report.html").read_text(encoding="utf-8")
