"""A real offline W&B run, read back from its file."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from bitsure.config.schema import resolved
from bitsure.quantize.native.rtn import Rtn
from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from bitsure.run import tracking, wandb_run
from tests.builders.answers import paired_runs
from tests.builders.offline_runs import read_back
from tests.builders.settings import MARGINS, METRIC
from tests.builders.stopped_runs import MOST
from tests.builders.wandb_runs import log_all, tracked_config


def test_an_offline_run_holds_config_numbers_pictures_samples_and_records(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret" * 8)
    full, quant, _ = paired_runs(30)
    (tmp_path / "records.parquet").write_bytes(b"stands in for records")
    made = build(tmp_path, quant, full, METRIC, MARGINS, About("title"))
    chosen = tracked_config()
    wandb_run.start_service(chosen.tracking)
    with tracking.track_run(chosen, resolved(chosen), tmp_path, "sweep-1", tmp_path / "log") as tracker:
        log_all(tracker, made, quant, full, tmp_path)
    found = read_back(tmp_path)
    assert found["exit"] == 0
    assert (found["run"].display_name, found["run"].run_group, found["run"].job_type) == ("m/rtn4", "sweep-1", "rtn4")
    assert found["config"]["quant"] == dataclasses.asdict(Rtn(4, 128, True)) | {"name": "rtn4"}
    assert found["config"]["provenance"]["git_commit"] == "abc"
    assert found["summary"]["t/accuracy"] == pytest.approx(made.metrics["t"]["accuracy"].value)
    assert found["summary"]["t/delta/true_label_prob"] == pytest.approx(made.comparison["t"]["true_label_prob"].value)
    assert found["summary"]["quantization/bits_per_weight_coded"] == 3.5
    assert found["summary"]["rounded/weights/bits"] == 4.2 and found["summary"]["quantization/checkpoint"] == "/store/weights/a"
    assert "quantization/load_seconds" not in found["summary"]  # of a quantizer without codes
    assert found["summary"]["costs/quantizing/seconds"] == 2.5
    assert found["summary"]["costs/scoring_quantized/tokens_per_second"] == 900.0
    assert not [key for key in found["summary"] if "by_task" in key or "scoring_full_precision" in key]
    assert (
        found["summary"]["verdict"] == made.verdict.verdict and found["summary"]["t/verdict"] == made.verdict.tasks["t"].verdict
    )
    assert found["summary"]["verdict_sentence"] == made.verdict.sentence
    logged = {key.removesuffix("/_type") for key in found["history"]}
    assert {"reliability/t", "risk_coverage/t", "shift/t", "deferral/t", "samples", "reliability_curve/t"} <= {
        key.removesuffix("_table") for key in logged
    } | logged
    assert found["artifacts"] and found["steps"] == 1  # samples and pictures stand beside each other
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path


def test_a_failing_run_is_finished_with_exit_code_1(tmp_path):
    with pytest.raises(RuntimeError), tracking.track_run(tracked_config(), {}, tmp_path, None, tmp_path / "log"):
        raise RuntimeError
    assert read_back(tmp_path)["exit"] == 1


@pytest.mark.filterwarnings("error")  # such as of an exception in a thread
def test_a_service_that_does_not_start_is_left_to_the_run_to_say(monkeypatch):
    started = threading.Event()

    def fail():
        started.set()
        raise RuntimeError("no service")

    monkeypatch.setattr("wandb.setup", fail)
    wandb_run.start_service(tracked_config().tracking)
    assert started.wait(MOST)


def test_disabled_makes_no_run(monkeypatch, tmp_path):
    monkeypatch.setattr(wandb_run.threading, "Thread", lambda **given: pytest.fail("W&B is started"))
    wandb_run.start_service(tracked_config("disabled").tracking)
    monkeypatch.undo()
    with tracking.track_run(tracked_config("disabled"), {}, tmp_path, None, tmp_path / "log") as tracker:
        log_all(tracker, None, [], None, tmp_path)
    assert tracker.where is None and list(tmp_path.iterdir()) == []


def test_an_id_is_kept_for_what_is_run_again_and_not_for_anything_else(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    first = wandb_run._run_id(tmp_path, "a")
    assert wandb_run._run_id(tmp_path, "a") == first
    second = wandb_run._run_id(tmp_path, "b")
    assert second != first and wandb_run._run_id(tmp_path, "b") == second
    for broken in ("", "[]", '{"of": "b"}', '{"id": "a/b", "of": "b"}'):
        (tmp_path / wandb_run.RUN_FILE).write_text(broken)
        assert wandb_run._run_id(tmp_path, "b") not in (first, second, "a/b")
    monkeypatch.setenv("WANDB_RUN_ID", "agent")
    assert wandb_run._run_id(tmp_path, "b") == "agent"
