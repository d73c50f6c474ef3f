"""W&B's limits, and a W&B that breaks off: the run's own results do not depend on it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from bitsure.config.model import ModelSettings
from bitsure.config.paths import PROJECT
from bitsure.run import tracking
from bitsure.run.wandb_names import NAME_BYTES, TAG_BYTES, fit
from tests.builders.marks import library
from tests.builders.offline_runs import read_back
from tests.builders.wandb_runs import tracked_config

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.mark.parametrize("most", [TAG_BYTES, NAME_BYTES])
def test_a_name_is_cut_to_the_limit_and_stays_unique(most):
    names = ["x" * most, "x" * most + "a", "x" * most + "b", "ä" * most + "a", "ä" * most + "b", "short", ""]
    cut = [fit(name, most) for name in names]
    assert cut[0] == names[0] and cut[5] == "short" and len(set(cut)) == len(names)
    assert all(1 <= len(name.encode()) <= most for name in cut)


def test_long_names_reach_wandb_in_part(tmp_path):
    config = tracked_config()
    config.model.name, config.task.name = "m" * 200, "t" * 65
    with tracking.track_run(config, {}, tmp_path, "g" * 300, tmp_path / "log") as tracker:
        pass
    assert tracker.warning is None
    run = read_back(tmp_path)["run"]
    assert [len(tag) for tag in run.tags] == [64, 4, 64] and run.tags[1] == "rtn4"
    assert len(run.display_name) == len(run.run_group) == 128


@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_model_has_a_name_wherever_it_lies(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {".": tmp_path.name, "..": tmp_path.parent.name, "/": "model"}
    assert ModelSettings(path=path).name == names[path]


BREAKS_OFF = """
import sys
from pathlib import Path
import psutil
from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from bitsure.run.tracking import track_run
from tests.builders.quantized_models import full_and_quantized
from tests.builders.settings import MARGINS, METRIC
from tests.builders.wandb_runs import log_all, tracked_config

folder, when = Path(sys.argv[1]), sys.argv[2]
(folder / "records.parquet").write_bytes(b"stands in for records")

full, quantized = full_and_quantized(0.5, 0, n=30)
report = build(folder, quantized, full, METRIC, MARGINS, About("title"))

def end_service():
    for child in psutil.Process().children(recursive=True):
        child.kill()
        child.wait()

with track_run(tracked_config(), {}, folder, None, folder / "log") as tracker:
    if when == "before logging":
        end_service()
    log_all(tracker, report, quantized, full, folder)
    if when == "at the end":
        end_service()
print(tracker.warning)
"""


@pytest.mark.parametrize("when", ["before logging", pytest.param("at the end", marks=pytest.mark.slow)])
def test_a_run_survives_the_end_of_wandbs_process(commands, tmp_path, when):
    library("psutil")
    folder = tmp_path / "a folder"
    folder.mkdir()
    shown = commands.run_python(PROJECT, "-c", BREAKS_OFF, str(folder), when)
    assert shown.startswith("W&B: missing: ") and "What was written until then: wandb sync '" in shown
    assert "run the same command with another hydra.run.dir" in shown and "Traceback" not in shown
    assert "Traceback" in (folder / "log").read_text()


@pytest.mark.parametrize("place", ["wandb", "wandb/run.json"])
def test_a_place_where_wandb_cannot_write_does_not_end_a_run(tmp_path, place):
    if place == "wandb":
        (tmp_path / place).write_text("")
    else:
        (tmp_path / place).mkdir(parents=True)
    with tracking.track_run(tracked_config(), {}, tmp_path, None, tmp_path / "log") as tracker:
        tracker.log(None)
    assert tracker.warning.startswith("W&B: missing: ") and "wandb" in tracker.warning


def test_the_line_that_sends_a_run_can_be_pasted(tmp_path):
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    with tracking.track_run(tracked_config(), {}, folder, None, folder / "log") as tracker:
        command = shlex.split(tracker.where)
    assert command[:2] == ["wandb", "sync"] and len(command) == 3
    assert list(Path(command[2]).glob("run-*.wandb"))
