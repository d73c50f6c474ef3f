"""What a server of Weights & Biases is given: online as it goes, of an offline directory by `wandb sync`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bitsure.config.paths import PROJECT
from bitsure.config.schema import resolved
from bitsure.records.parquet import write_records
from bitsure.report.contents import About
from bitsure.report.run_report import build
from bitsure.run import tracking
from tests.builders.loopback_wandb import run_python, serve
from tests.builders.result_files import costs, provenance, quantization
from tests.comparison.test_differences import runs
from tests.comparison.test_non_inferiority import MARGINS
from tests.metrics.test_run_metrics import METRIC
from tests.run.test_tracking import config


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serve() as running:
        for name, value in running.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield running


RUN = """
import sys
from pathlib import Path
from tests.run.test_tracking_server import log
log(Path(sys.argv[1]), sys.argv[2])
"""


def log(folder: Path, mode: str) -> None:
    """A run of 30 questions, tracked."""
    full, quant, _ = runs(30)
    write_records(folder / "records.parquet", quant, {})
    made = build(folder, quant, full, METRIC, MARGINS, About("title"))
    chosen = config(mode)
    tracking.check_login(chosen.tracking)
    with tracking.track_run(chosen, resolved(chosen), folder, "sweep-1", folder / "log") as tracker:
        tracker.log_facts(provenance(), quantization(), costs())
        tracker.log_report(made, quant, full, METRIC)
        tracker.log_records(folder / "records.parquet")


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_server_is_given_a_run_whole(server, tmp_path, mode):
    run_python(PROJECT, "-c", RUN, str(tmp_path), mode)
    if mode == "offline":
        assert not server.runs
        run_python(tmp_path, "-m", "wandb", "sync", *map(str, tmp_path.glob("wandb/offline-run-*")))
    [(name, run)] = server.runs.items()
    assert (run["displayName"], run["groupName"], run["jobType"]) == ("m/rtn4", "sweep-1", "rtn4")
    assert json.loads(run["config"])["quant"]["value"]["bits"] == 4
    [row] = server.rows[name]
    assert {"samples", "reliability/t", "risk_coverage/t", "shift/t", "deferral/t"} <= set(row)
    assert server.exits[name] == 0
    summary = json.loads(server.files["wandb-summary.json"])
    assert summary["t/accuracy"] == json.loads((tmp_path / "metrics.json").read_text())["t"]["accuracy"]["value"]
    assert ("records", f"records-{name}") in server.artifacts
    assert pq.read_table(io.BytesIO(server.files["records.parquet"])).num_rows == 30
    [samples] = [content for path, content in server.files.items() if path.startswith("media/table/samples")]
    assert len(json.loads(samples)["data"]) == 30


def test_a_cell_that_is_run_again_online_is_the_same_run(server, tmp_path):
    for _ in range(2):
        run_python(PROJECT, "-c", RUN, str(tmp_path), "online")
    [name] = server.runs
    assert server.exits[name] == 0
