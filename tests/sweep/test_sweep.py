"""What a sweep ends with: its files, and a real offline W&B run, read back from its file."""

from __future__ import annotations

import shutil

import pytest

from bitsure import sweep
from bitsure.report.__main__ import main
from tests.test_tracking import read_back


def test_a_sweeps_summary_run_has_its_table_pictures_and_files(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret" * 8)
    folder = shutil.copytree(finished, tmp_path / "small")
    for path in folder.glob("*/config.yaml"):
        path.write_text(path.read_text().replace("mode: disabled", "mode: offline"))
    made = sweep.finish(folder)
    found = read_back(folder)
    assert found["exit"] == 0
    assert (found["run"].display_name, found["run"].run_group, found["run"].job_type) == ("small/sweep", "small", "sweep")
    assert (found["summary"]["sweep/cells"], found["summary"]["sweep/done"], found["summary"]["sweep/not_done"]) == (12, 12, 0)
    logged = {key.removesuffix("/_type") for key in found["history"]}
    assert {"sweep/table", *(f"sweep/{picture.name}" for picture, _ in made.pictures)} <= logged
    [artifact] = [one for one in found["artifacts"] if one.type == "sweep"]
    assert artifact.name == "sweep" and {"sweep.parquet", "sweep.html", "figures/pareto.png", "tables/study.csv"} <= {
        entry.path for entry in artifact.manifest.contents
    }
    for path in folder.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path


def test_the_command_logs_the_summary_run_of_a_sweep_that_had_none(finished, tmp_path):
    """Such as one of wandb's agents, which know of no end."""
    folder = shutil.copytree(finished, tmp_path / "small")
    for path in folder.glob("*/config.yaml"):
        path.write_text(path.read_text().replace("mode: disabled", "mode: offline\n  group: agents"))
    main([str(folder), "--track"])
    found = read_back(folder)
    assert (found["run"].display_name, found["run"].run_group, found["summary"]["sweep/done"]) == ("agents/sweep", "agents", 12)
    with pytest.raises(SystemExit, match="no sweep's directory"):
        main([str(next(folder.glob("0-*"))), "--track"])


def test_a_sweep_of_cells_without_tracking_makes_no_run(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "small")
    sweep.finish(folder)
    assert (folder / "sweep.html").is_file() and not (folder / "wandb").exists()
