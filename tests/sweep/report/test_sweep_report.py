"""What a sweep ends with: its files, and a real offline W&B run, read back from its file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bitsure.base.errors import UserError
from bitsure.cli import main
from bitsure.sweep.dashboard.dashboard_sections import SECTIONS
from bitsure.sweep.report.building import build_sweep_report, finish_sweep
from bitsure.sweep.report.cell_results import unplanned
from bitsure.sweep.report.sweep_report import SweepReport
from bitsure.sweep.report.sweep_terminal import show_sweep
from tests.builders.loopback_wandb import serve
from tests.builders.offline_runs import read_back
from tests.builders.sweeps import leave_unfinished, write_plan

pytestmark = pytest.mark.usefixtures("blank_pictures")

EMPTY_RUN = "wandb/offline-run-20260101_000000-abc"


def copy_tracked(sweep: Path, place: Path, settings: str = "mode: offline") -> Path:
    """Copy a sweep whose cells were not tracked, as if they had been."""
    folder = shutil.copytree(sweep, place)
    for path in folder.glob("*/config.yaml"):
        path.write_text(path.read_text().replace("mode: disabled", settings))
    return folder


@pytest.fixture(scope="module")
def tracked(finished, tmp_path_factory) -> SweepReport:
    """A tracked sweep with its summary run; one cell was killed before W&B wrote anything, one has begun and goes on."""
    folder = copy_tracked(finished, tmp_path_factory.mktemp("tracked") / "small")
    for name, status in {"90-killed": {"state": "killed", "error": "signal 9"}, "91-running": {"state": "running"}}.items():
        leave_unfinished(folder, name, **status)
        (folder / name / EMPTY_RUN).mkdir(parents=True)
        (folder / name / EMPTY_RUN / "run-abc.wandb").write_bytes(b"7 bytes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", "s3cret" * 8)
        report = finish_sweep(folder)
    read_back(folder)  # whole
    return report


def test_a_sweeps_summary_run_has_its_tables_charts_page_and_files(tracked):
    found = read_back(tracked.directory)
    assert found["exit"] == 0
    assert (found["run"].display_name, found["run"].run_group, found["run"].job_type) == ("small/sweep", "small", "sweep")
    assert (found["summary"]["sweep/cells"], found["summary"]["sweep/done"], found["summary"]["sweep/not_done"]) == (14, 12, 2)
    of_sweep = [panel for section in SECTIONS if section.of_sweep for panel in section.shown]
    assert {key for panel in of_sweep for key in panel.keys} <= found["keys"] | set(found["panels"])
    [artifact] = [one for one in found["artifacts"] if one.type == "sweep"]
    assert artifact.name == "sweep-small" and {"sweep.parquet", "sweep.html", "figures/pareto.png", "tables/study.csv"} <= {
        entry.path for entry in artifact.manifest.contents
    }
    for path in tracked.directory.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path


def test_a_sweep_ends_with_the_place_of_its_summary_run(tracked, capsys):
    show_sweep(tracked)
    assert capsys.readouterr().out.splitlines()[-1] == f"W&B      {tracked.tracked}"
    assert tracked.tracked.startswith(f"wandb sync {tracked.directory}/wandb/offline-run-")
    assert f"wandb sync {tracked.directory}/wandb/offline-run-*" in tracked.page.read_text(encoding="utf-8")


def test_a_sweeps_directory_syncs_as_it_is(tracked, commands, tmp_path, monkeypatch):
    folder = tracked.directory
    with serve() as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        commands.run_python(tmp_path, "-m", "wandb", "sync", *map(str, folder.glob("wandb/offline-run-*")))
    [run] = server.runs.values()
    assert (run["displayName"], run["groupName"], run["jobType"]) == ("small/sweep", "small", "sweep")
    assert server.artifacts.count(("sweep", "sweep-small")) == 1
    assert server.files["sweep.parquet"] == (folder / "sweep.parquet").read_bytes()
    assert json.loads(server.files["wandb-summary.json"])["sweep/done"] == 12


def test_what_a_killed_cell_left_empty_does_not_stop_the_rest_from_being_sent(tracked):
    left = [(tracked.directory / name / EMPTY_RUN).exists() for name in ("90-killed", "91-running")]
    assert left == [False, True]  # one that goes on may write yet


@pytest.mark.slow
def test_a_sweep_that_is_reported_again_is_the_same_run(two_cells, tmp_path, monkeypatch):
    """And one of other cells, in the same folder, is another; an agent gives its own id."""
    folder = copy_tracked(two_cells, tmp_path / "small")
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)

    def runs() -> list[str]:
        finish_sweep(folder)
        return [path.name.rpartition("-")[2] for path in sorted(folder.glob("wandb/offline-run-*"))]

    first = runs()
    assert len(first) == 1 and runs() == first
    shutil.rmtree(next(folder.glob("0-*")))
    other = runs()
    assert len(other) == 2 and set(first) < set(other)
    monkeypatch.setenv("WANDB_RUN_ID", "ofanagent")
    assert "ofanagent" in runs()


def test_cells_of_another_command_are_left_out_and_named(two_cells, tmp_path, capsys):
    folder = shutil.copytree(two_cells, tmp_path / "small")
    directories = sorted(path.parent.name for path in folder.glob("*/status.json"))
    write_plan(folder, *((name, name) for name in directories[1:]))
    report = build_sweep_report(folder)
    assert report.unplanned == directories[:1] and len(report.cells) == len(directories) - 1
    show_sweep(report)
    assert f"left out, because another command made them: {directories[0]}" in capsys.readouterr().out
    assert f"Left out, because another command made them in the same folder: {directories[0]}." in report.page.read_text()
    write_plan(folder, *((str((folder / name).resolve()), name) for name in directories))  # absolute
    assert unplanned(folder) == []


@pytest.mark.parametrize("name", ["figures", "tables"])
def test_nothing_is_written_through_a_link_of_someone_elses_sweep(two_cells, tmp_path, name):
    folder = shutil.copytree(two_cells, tmp_path / "small")
    shutil.rmtree(folder / name, ignore_errors=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{name} is a link"):
        build_sweep_report(folder)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_tables_that_a_sweep_has_nothing_for_have_their_columns(tracked, two_cells, tmp_path):
    one = shutil.copytree(next(two_cells.glob("0-*")), tmp_path / "one" / "0-one").parent
    build_sweep_report(one)
    assert (one / "tables" / "draws.csv").read_text().startswith("model,series,parameters,quantizer,")
    for name in ("contrasts", "contrasts_of_quantizers", "heterogeneity"):
        columns = [(folder / "tables" / f"{name}.csv").read_text().splitlines()[0] for folder in (one, tracked.directory)]
        assert columns[0] == columns[1]


def test_the_command_logs_the_summary_run_of_a_sweep_that_had_none(two_cells, tmp_path):
    """Such as one of wandb's agents, which know of no end."""
    folder = copy_tracked(two_cells, tmp_path / "small", "mode: offline\n  group: agents")
    main(["report", str(folder), "--track"])
    found = read_back(folder)
    assert (found["run"].display_name, found["run"].run_group, found["summary"]["sweep/done"]) == ("agents/sweep", "agents", 2)
    cell = next(folder.glob("0-*"))
    (cell / "records.parquet").touch()
    with pytest.raises(SystemExit, match="is a run's directory, and --track logs a sweep's summary run: `bitsure report "):
        main(["report", str(cell), "--track"])


def test_a_sweep_of_cells_without_tracking_makes_no_run(two_cells, tmp_path):
    folder = shutil.copytree(two_cells, tmp_path / "small")
    finish_sweep(folder)
    assert (folder / "sweep.html").is_file() and not (folder / "wandb").exists()
