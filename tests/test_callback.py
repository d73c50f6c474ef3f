"""What a sweep's callback does when it cannot check the cells, or was never told of them: Hydra itself would exit with 0."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from bitsure import callback, plan
from tests.test_composing import command


@pytest.fixture
def config(tmp_path):
    return OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})


def test_any_error_of_the_check_stops_the_sweep(monkeypatch, capsys):
    monkeypatch.setattr(plan, "look", lambda *given: {}["no such key"])
    with command("model=pocket-1m", "quant=rtn3,rtn4") as (master, _), pytest.raises(SystemExit) as exited:
        callback.SweepCallback().on_multirun_start(master)
    assert exited.value.code not in (0, None) and "no cell was started" in exited.value.code
    assert "KeyError: 'no such key'" in capsys.readouterr().err


def test_cells_may_lie_elsewhere_than_in_the_sweep(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "look", lambda *given: ([], []))
    places = [f"hydra.sweep.dir={tmp_path / 'sweep'}", f"hydra.sweep.subdir={tmp_path}/cells/${{hydra:job.num}}"]
    with command("model=pocket-1m", "quant=rtn3,rtn4", *places) as (master, _):
        callback.SweepCallback().on_multirun_start(master)
    listed = json.loads((tmp_path / "sweep" / "plan.json").read_text())["cells"]
    assert [cell["directory"] for cell in listed] == [f"{tmp_path}/cells/0", f"{tmp_path}/cells/1"]


def test_the_failed_cells_of_another_sweeper_fail_the_command(config, tmp_path, capsys):
    for name, state, error in (("0", "done", None), ("1", "failed", "OutOfMemoryError: 3 GiB\nmore")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(json.dumps({"state": state, "error": error}))
    with pytest.raises(SystemExit) as exited:
        callback.SweepCallback().on_multirun_end(config)
    assert "- 1: failed: OutOfMemoryError: 3 GiB" in exited.value.code and "- 0:" not in exited.value.code
