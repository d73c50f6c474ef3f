"""What a command would do, on a machine that has only some of what it needs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bitsure.base.memo import Memo
from bitsure.config.schema import ModelSettings
from bitsure.models.locate import locate_model
from bitsure.sweep.launch import dry_run, printed_plan
from bitsure.sweep.launch.composed_cell import CellErrors
from tests.builders.data_sets import ASKED_TASK
from tests.builders.sweep_commands import compose_valid


@pytest.fixture
def cells(served, published, tmp_path, monkeypatch, calib_file):
    """Two cells of a model that is in the hub's cache, and of a task whose data is not."""
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    locate_model(ModelSettings(repo="org/tiny"), None)
    (tmp_path / "asked.yaml").write_text(ASKED_TASK)
    task = [f"task.include_path={tmp_path}", "task.names=[asked]"]
    calib = ["calib=text", f"calib.path={calib_file}", "calib.nsamples=8", "calib.seqlen=64"]
    return compose_valid("model=hub", "model.repo=org/tiny", "quant=none,rtn3", *task, *calib, "tracking.mode=disabled")


def test_data_that_is_still_to_be_downloaded_is_no_error_and_not_in_the_estimate(cells, capsys):
    errors = CellErrors()
    planned = dry_run.inspect_cells(cells, errors, Memo())
    assert errors.lines() == [] and [one.downloads for one in planned] == [["task.names: asked: data set org/asked"]] * 2
    printed_plan.show(cells, CellErrors())
    said = capsys.readouterr().out
    assert "2 cells, 0 done.\nTo be downloaded first: task.names: asked: data set org/asked.\n" in said
    assert "An estimate" not in said and "There is no estimate" in said and "would fail" not in said
    assert said.count("tiny has ") == 1 and " parameters by its config.json, 590 KiB in float32." in said


def test_a_plan_says_that_downloads_would_fail(cells, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    printed_plan.show(cells, CellErrors())
    assert "The downloads would fail now: task.names: asked: data set org/asked is not available" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["calib=c4", "text=wikitext2"])
def test_a_text_that_is_still_to_be_downloaded_is_no_error(served, published, tmp_path, monkeypatch, text):
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    locate_model(ModelSettings(repo="org/tiny"), None)
    errors = CellErrors()
    cells = compose_valid("model=hub", "model.repo=org/tiny", "quant=rtn3", "task=pocket", "calib=pocket", text)
    [planned] = dry_run.inspect_cells(cells, errors, Memo())
    assert errors.lines() == [] and len(planned.downloads) == 1 and "of data set" in planned.downloads[0]


def test_before_a_sweep_the_hub_has_to_be_there(cells, served, monkeypatch):
    planned = dry_run.inspect_cells(cells, CellErrors(), Memo())
    assert dry_run.unreachable(planned) == [] == dry_run.unreachable([])
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    [said] = dry_run.unreachable(planned)
    assert "task.names: asked: data set org/asked is not available: the hub's client says " in said
    assert "make prefetch" in said
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    [said] = dry_run.unreachable(planned)
    assert "is not available: the hub is not asked (HF_HUB_OFFLINE)" in said


def test_of_many_downloads_an_error_names_three(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    planned = [SimpleNamespace(downloads=[f"model org/m{number}"]) for number in (1, 2, 3, 4, 5, 5)]
    [said] = dry_run.unreachable(planned)
    assert said.startswith("one of model org/m1; model org/m2; model org/m3; 2 more is not available")
