"""What a sweep's callback does when it cannot check the cells, or was never told of them: Hydra itself would exit with 0."""

from __future__ import annotations

import json
from contextlib import nullcontext

import filelock
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf

from bitsure.results import Labels
from bitsure.sweep.launch import callback, cell_process, dry_run
from bitsure.sweep.launch.cell_line import cell_line
from tests.builders.marks import library
from tests.builders.sweep_commands import command

NOT_SET_BY_RAY = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


@pytest.fixture
def config(tmp_path):
    return OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})


def test_any_error_of_the_check_stops_the_sweep(monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "inspect_cells", lambda *given: {}["no such key"])
    with command("model=pocket-1m", "quant=rtn3,rtn4") as (master, _), pytest.raises(SystemExit) as exited:
        callback.SweepCallback().on_multirun_start(master)
    assert exited.value.code not in (0, None) and "no cell was started" in exited.value.code
    assert "KeyError: 'no such key'" in capsys.readouterr().err


def test_cells_may_lie_elsewhere_than_in_the_sweep(monkeypatch, tmp_path):
    monkeypatch.setattr(dry_run, "inspect_cells", lambda *given: [])
    places = [f"hydra.sweep.dir={tmp_path / 'sweep'}", f"hydra.sweep.subdir={tmp_path}/cells/${{hydra:job.num}}"]
    with command("model=pocket-1m", "quant=rtn3,rtn4", *places) as (master, _):
        callback.SweepCallback().on_multirun_start(master)
    listed = json.loads((tmp_path / "sweep" / "plan.json").read_text())["cells"]
    assert [cell["directory"] for cell in listed] == [f"{tmp_path}/cells/0", f"{tmp_path}/cells/1"]


def test_a_repeated_cell_is_in_no_plan_and_is_not_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(dry_run, "inspect_cells", lambda cells, *given: inspected.append(len(cells)) or [])
    inspected: list[int] = []
    given = ["model=pocket-1m", "quant=rtn3", "calib.seed=0,1", "sweep.skip_repeated=true", f"hydra.sweep.dir={tmp_path}"]
    with command(*given) as (master, _):
        callback.SweepCallback().on_multirun_start(master)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [cell["directory"] for cell in plan["cells"]] == ["0-pocket-1m-rtn3"] and inspected == [1]
    assert plan["repeated"] == {"1-pocket-1m-rtn3": "0-pocket-1m-rtn3"}
    assert "1 of 2 cells are left out: their quantizers read no calibration text" in capsys.readouterr().out
    line = cell_line(tmp_path / "1-pocket-1m-rtn3", tmp_path, Labels(model="pocket-1m", quantizer="rtn3"))
    assert line.repeats == "0-pocket-1m-rtn3"
    assert cell_process.run(None, line.run_dir, line, {}) is None and not (line.run_dir / "status.json").exists()


def test_a_directory_is_one_sweeps_at_a_time(commands, monkeypatch, tmp_path):
    monkeypatch.setattr(dry_run, "inspect_cells", lambda *given: [])
    place = f"hydra.sweep.dir={tmp_path}"
    with command("model=pocket-1m", "quant=rtn3,rtn4", place) as (master, _):
        callback.SweepCallback().on_multirun_start(master)
        planned = (tmp_path / "plan.json").read_text()
        (tmp_path / "0-pocket-300k-rtn3").mkdir()
        (tmp_path / "0-pocket-300k-rtn3" / "records.parquet").write_bytes(b"of another run PAR1")  # not what is to be said
        done = commands.run("-m", "model=pocket-300k", "quant=rtn3,rtn4", place, cwd=tmp_path)
        assert done.returncode == 1 and f"{tmp_path} is in use by a sweep that goes on now" in done.stderr
        assert "remove" not in done.stderr and (tmp_path / "plan.json").read_text() == planned
        assert BasicSweeper.validate_batch_is_legal.__name__ == "<lambda>"
        with pytest.raises(SystemExit):  # its cells were not run
            callback.SweepCallback().on_multirun_end(master)
        assert BasicSweeper.validate_batch_is_legal.__name__ == "validate_batch_is_legal"
    filelock.FileLock(tmp_path / ".sweep.lock").acquire(timeout=0).lock.release()  # by another, as it is free again


def test_a_cell_may_have_the_sweeps_own_directory(commands, tmp_path):
    settings = ["model=pocket-300k", "quant=none", "task.limit=2", "tracking.mode=disabled"]
    places = [f"hydra.sweep.dir={tmp_path}/one", "hydra.sweep.subdir=."]
    done = commands.run("-m", *settings, *places, cwd=tmp_path, environment={"BITSURE_STORE": str(tmp_path / "store")})
    assert done.returncode == 0 and "1 cell: 1 done" in done.stdout, done.stderr


def test_the_failed_cells_of_another_sweeper_fail_the_command(config, tmp_path, capsys):
    for name, state, error in (("0", "done", None), ("1", "failed", "OutOfMemoryError: 3 GiB\nmore")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(
            json.dumps({"state": state, "host": "here", "pid": 7, "started": 1.0, "error": error})
        )
    with pytest.raises(SystemExit) as exited:
        callback.SweepCallback().on_multirun_end(config)
    assert "- 1: failed: OutOfMemoryError: 3 GiB" in exited.value.code and "- 0:" not in exited.value.code


@pytest.mark.parametrize(
    ("overrides", "elsewhere"),
    [
        ([], False),
        (["hydra/launcher=joblib"], False),
        (["hydra/launcher=submitit_local"], False),
        (["hydra/launcher=submitit_slurm"], True),
        (["hydra/launcher=ray"], False),
        (["hydra/launcher=ray", "hydra.launcher.ray.init.address=auto"], True),
    ],
)
def test_cells_of_a_cluster_are_planned_as_for_its_nodes(monkeypatch, overrides, elsewhere, tmp_path):
    seen = []
    monkeypatch.setattr(callback, "_check_installed", lambda target: None)  # its package may be missing here
    monkeypatch.setattr(dry_run, "inspect_cells", lambda cells, errors, memo, on_nodes: seen.append(on_nodes) or [])
    with command("model=pocket-1m", "quant=rtn3,rtn4", f"hydra.sweep.dir={tmp_path}", *overrides) as (master, _):
        callback.SweepCallback().on_multirun_start(master)
    assert seen == [elsewhere]


@pytest.mark.parametrize(("launcher", "starts"), [("basic", False), ("submitit_slurm", True)])
def test_no_cell_starts_without_the_hub_that_it_needs(monkeypatch, launcher, starts, tmp_path):
    """Nodes of a cluster have a network of their own."""
    away = [dry_run.InspectedCell(None, downloads=["model org/none at revision main"])]
    monkeypatch.setattr(callback, "_check_installed", lambda target: None)
    monkeypatch.setattr(dry_run, "inspect_cells", lambda *given: away)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = ["model=pocket-1m", "quant=rtn3,rtn4", f"hydra.sweep.dir={tmp_path}", f"hydra/launcher={launcher}"]
    refused = pytest.raises(SystemExit, match="model org/none at revision main is not available: the hub is not asked")
    with command(*settings) as (master, _), nullcontext() if starts else refused:
        callback.SweepCallback().on_multirun_start(master)
    assert (tmp_path / "plan.json").is_file() == starts


def test_ray_leaves_gpus_to_the_cells():
    """Ray hides all GPUs from what is promised none, unless it is told not to; the cells take one each by themselves."""
    with command("model=pocket-1m", "quant=rtn3,rtn4", "hydra/launcher=ray") as (master, _):
        ray = master.hydra.launcher.ray
    assert ray.remote.num_gpus == 0 and dict(ray.init.runtime_env.env_vars) == {NOT_SET_BY_RAY: "1"}


def test_ray_knows_that_setting_by_that_name():
    nvidia = library("ray._private.accelerators.nvidia_gpu")
    assert nvidia.NOSET_CUDA_VISIBLE_DEVICES_ENV_VAR == NOT_SET_BY_RAY
