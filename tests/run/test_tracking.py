"""A real offline W&B run, read back from its file."""

from __future__ import annotations

import dataclasses
import json
import threading
import time

import pytest

from bitsure.config.schema import (
    CalibSettings,
    Config,
    ControlSettings,
    MetricSettings,
    ModelSettings,
    PathSettings,
    ScoringSettings,
    TaskSettings,
    TrackingSettings,
    resolved,
)
from bitsure.quantize.native.rtn import Rtn
from bitsure.report.contents import About
from bitsure.report.run_report import build
from bitsure.run import tracking
from tests.builders.result_files import costs, provenance, quantization
from tests.comparison.test_differences import runs
from tests.comparison.test_non_inferiority import MARGINS

METRIC = MetricSettings(
    n_bins=15,
    binning="uniform",
    normalization="none",
    paper_compat=False,
    resamples=200,
    confidence_level=0.95,
    alpha=0.01,
    seed=0,
)


def config(mode="offline") -> Config:
    return Config(
        model=ModelSettings(path="somewhere/m"),
        quant=Rtn(4, 128, True),
        control=ControlSettings(seeds=0),
        calib=CalibSettings(name="text", path="a.txt", nsamples=1, seqlen=8),
        task=TaskSettings(name="own", names=["t"]),
        scoring=ScoringSettings(),
        metric=METRIC,
        verdict=MARGINS,
        tracking=TrackingSettings(mode=mode),
        paths=PathSettings(store="store"),
    )


def read_back(run_dir):
    """What a finished run's file holds, once W&B's own process has written the last of it."""
    from google.protobuf.message import DecodeError

    deadline = time.monotonic() + 20
    while True:
        try:
            found = _read_back(run_dir)
            if found["exit"] is not None or time.monotonic() > deadline:
                return found
        except DecodeError:  # a record that is half written yet
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _read_back(run_dir):
    """The records of the one offline run below a directory: run, config, summary, history keys, steps, files, exit code."""
    from wandb.proto import wandb_internal_pb2 as pb

    [path] = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    found = {"config": {}, "summary": {}, "history": set(), "steps": 0, "exit": None, "run": None, "artifacts": []}
    for payload in leveldb_records(path.read_bytes()):
        record = pb.Record.FromString(payload)
        match record.WhichOneof("record_type"):
            case "run":
                found["run"] = record.run
                found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            case "config":
                found["config"] |= {
                    item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.config.update
                }
            case "summary":
                items = record.summary.update
                found["summary"] |= {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            case "history":
                found["steps"] += 1
                found["history"] |= {item.key or "/".join(item.nested_key) for item in record.history.item}
            case "exit":
                found["exit"] = record.exit.exit_code
            case "artifact":
                found["artifacts"].append(record.artifact)
    return found


def leveldb_records(data: bytes):
    """The records of a LevelDB log: 32 KiB blocks of chunks (crc 4, length 2, type 1: full, first, middle, last)."""
    block, position, parts = 32768, 7, []  # W&B's own header of 7 bytes comes first
    while position + 7 <= len(data):
        left = block - position % block
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        if kind == 0:
            break
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def log(tracker: tracking.Tracker, report, quantized, full, run_dir) -> None:
    tracker.log_facts(provenance(), quantization(bits_per_weight_coded=3.5), costs())
    tracker.log_report(report, quantized, full, METRIC)
    tracker.log_records(run_dir / "records.parquet")


def test_an_offline_run_holds_config_numbers_pictures_samples_and_records(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret" * 8)
    full, quant, _ = runs(30)
    (tmp_path / "records.parquet").write_bytes(b"stands in for records")
    made = build(tmp_path, quant, full, METRIC, MARGINS, About("title"))
    chosen = config()
    tracking.start_service(chosen.tracking)
    with tracking.track_run(chosen, resolved(chosen), tmp_path, "sweep-1", tmp_path / "log") as tracker:
        log(tracker, made, quant, full, tmp_path)
    found = read_back(tmp_path)
    assert found["exit"] == 0
    assert (found["run"].display_name, found["run"].run_group, found["run"].job_type) == ("m/rtn4", "sweep-1", "rtn4")
    assert found["config"]["quant"] == dataclasses.asdict(Rtn(4, 128, True)) | {"name": "rtn4"}
    assert found["config"]["provenance"]["git_commit"] == "abc"
    assert found["summary"]["t/accuracy"] == pytest.approx(made.metrics["t"]["accuracy"].value)
    assert found["summary"]["t/delta/true_label_prob"] == pytest.approx(made.comparison["t"]["true_label_prob"].value)
    assert found["summary"]["quantization/bits_per_weight_coded"] == 3.5
    assert "quantization/load_seconds" not in found["summary"]  # of a quantizer without codes
    assert found["summary"]["costs/quantizing/seconds"] == 2.5
    assert found["summary"]["costs/scoring_quantized/tokens_per_second"] == 900.0
    assert not [key for key in found["summary"] if "by_task" in key or "scoring_full_precision" in key]
    assert found["summary"]["verdict"] == made.verdict.verdict == found["summary"]["t/verdict"]
    logged = {key.removesuffix("/_type") for key in found["history"]}
    assert {"reliability/t", "risk_coverage/t", "shift/t", "deferral/t", "samples", "reliability_curve/t"} <= {
        key.removesuffix("_table") for key in logged
    } | logged
    assert found["artifacts"] and found["steps"] == 1  # samples and pictures stand beside each other
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path


def test_a_failing_run_is_finished_with_exit_code_1(tmp_path):
    with pytest.raises(RuntimeError), tracking.track_run(config(), {}, tmp_path, None, tmp_path / "log"):
        raise RuntimeError
    assert read_back(tmp_path)["exit"] == 1


@pytest.mark.filterwarnings("error")  # such as of an exception in a thread
def test_a_service_that_does_not_start_is_left_to_the_run_to_say(monkeypatch):
    started = threading.Event()

    def fail():
        started.set()
        raise RuntimeError("no service")

    monkeypatch.setattr("wandb.setup", fail)
    tracking.start_service(config().tracking)
    assert started.wait(10)


def test_disabled_makes_no_run(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking.threading, "Thread", lambda **given: pytest.fail("W&B is started"))
    tracking.start_service(config("disabled").tracking)
    monkeypatch.undo()
    with tracking.track_run(config("disabled"), {}, tmp_path, None, tmp_path / "log") as tracker:
        log(tracker, None, [], None, tmp_path)
    assert tracker.where is None and list(tmp_path.iterdir()) == []


def test_an_id_is_kept_for_what_is_run_again_and_not_for_anything_else(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    first = tracking._run_id(tmp_path, "a")
    assert tracking._run_id(tmp_path, "a") == first
    second = tracking._run_id(tmp_path, "b")
    assert second != first and tracking._run_id(tmp_path, "b") == second
    for broken in ("", "[]", '{"of": "b"}', '{"id": "a/b", "of": "b"}'):
        (tmp_path / tracking.RUN_FILE).write_text(broken)
        assert tracking._run_id(tmp_path, "b") not in (first, second, "a/b")
    monkeypatch.setenv("WANDB_RUN_ID", "agent")
    assert tracking._run_id(tmp_path, "b") == "agent"
