"""What a W&B server receives: from an online run as it goes, from an offline one by `wandb sync`."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest

from bitsure.config.paths import PROJECT
from bitsure.report.tracked_run import tracked_at
from tests.builders.loopback_wandb import serve


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serve() as running:
        for name, value in running.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield running


RUN = """
import sys
from pathlib import Path
from bitsure.config.schema import resolved
from bitsure.records.parquet import write_records
from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from bitsure.run.tracking import track_run
from bitsure.run.wandb_run import check_login
from tests.builders.settings import MARGINS, METRIC
from tests.builders.quantized_models import full_and_quantized
from tests.builders.wandb_runs import log_all, tracked_config

folder, config = Path(sys.argv[1]), tracked_config(sys.argv[2])
full, quantized = full_and_quantized(0.5, 0, n=30)
write_records(folder / "records.parquet", quantized, {})
report = build(folder, quantized, full, METRIC, MARGINS, About("title"))
check_login(config.tracking)
with track_run(config, resolved(config), folder, "sweep-1", folder / "log") as tracker:
    log_all(tracker, report, quantized, full, folder)
"""


@pytest.mark.parametrize("mode", ["online", pytest.param("offline", marks=pytest.mark.slow)])
def test_a_server_is_given_a_run_whole(server, commands, tmp_path, mode):
    commands.run_python(PROJECT, "-c", RUN, str(tmp_path), mode)
    if mode == "offline":
        assert not server.runs
        commands.run_python(tmp_path, "-m", "wandb", "sync", *map(str, tmp_path.glob("wandb/offline-run-*")))
    [(name, run)] = server.runs.items()
    place = tracked_at(tmp_path)
    assert place.startswith(server.url) and place.endswith(name) if mode == "online" else place.startswith("wandb sync")
    assert (run["displayName"], run["groupName"], run["jobType"]) == ("m/rtn4/own", "sweep-1", "evaluation")
    assert json.loads(run["config"])["quant"]["value"]["bits"] == 4
    [row] = server.rows[name]
    assert {"samples", "numbers", "report", "accuracy/mean", "reliability/t_table", "deferral/t_table"} <= set(row)
    assert server.exits[name] == 0
    summary = json.loads(server.files["wandb-summary.json"])
    assert summary["accuracy/t"] == json.loads((tmp_path / "metrics.json").read_text())["t"]["accuracy"]["value"]
    own = {("records", f"records-{name}"), ("report", f"report-{name}"), ("checkpoint", "checkpoint-a")}
    assert own <= set(server.artifacts)
    assert pq.read_table(io.BytesIO(server.files["records.parquet"])).num_rows == 30
    [samples] = [content for path, content in server.files.items() if path.startswith("media/table/samples")]
    assert len(json.loads(samples)["data"]) == 30


@pytest.mark.slow
def test_a_cell_that_is_run_again_online_is_the_same_run(server, commands, tmp_path):
    for _ in range(2):
        commands.run_python(PROJECT, "-c", RUN, str(tmp_path), "online")
    [name] = server.runs
    assert server.exits[name] == 0
