"""A real offline W&B run, read back from its file."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest

from bitsure.config.schema import resolved
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.rtn import Rtn
from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from bitsure.results import Labels
from bitsure.run import tracking, wandb_run
from tests.builders.answers import paired_runs
from tests.builders.offline_runs import read_back
from tests.builders.settings import MARGINS, METRIC
from tests.builders.stopped_runs import MOST
from tests.builders.wandb_runs import log_all, tracked_config

pytestmark = pytest.mark.usefixtures("blank_pictures")


def test_an_offline_run_holds_config_numbers_charts_tables_page_and_files(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret" * 8)
    full, quant, _ = paired_runs(30)
    report = build(tmp_path, quant, full, METRIC, MARGINS, About("title"))
    chosen = tracked_config()
    chosen.tracking = dataclasses.replace(chosen.tracking, tags=["mine"], notes="why")
    labels = Labels(model="m", quantizer="rtn4", preset="rtn4", settings=["task=own", "task.limit=5"])
    (tmp_path / "texts.parquet").touch()
    wandb_run.start_service(chosen.tracking)
    with tracking.track_run(chosen, resolved(chosen), tmp_path, "sweep-1", tmp_path / "log", labels) as tracker:
        log_all(tracker, report, quant, full, tmp_path)
    stored = read_back(tmp_path)
    assert stored["exit"] == 0 and stored["steps"] == 1  # everything stands beside everything
    run, config, summary = stored["run"], stored["config"], stored["summary"]
    assert (run.display_name, run.run_group, run.job_type) == ("m/rtn4/own task.limit=5", "sweep-1", "evaluation")
    assert (run.notes, run.tags[-1]) == ("why", "mine")
    assert config["quant"] == dataclasses.asdict(Rtn(4, 128, True)) | {"name": "rtn4"}
    assert (config["method"], config["preset"], config["bits"]) == ("rtn", "rtn4", 4)
    assert config["provenance"]["git_commit"] == "abc" and config["checkpoint"] == "/store/weights/a"
    numbers = {key: value for key, value in summary.items() if isinstance(value, float | int)}
    assert numbers["accuracy/t"] == numbers["accuracy/mean"] == report.metrics["t"]["accuracy"].value
    assert numbers["true_label_prob/mean/change"] == report.comparison["t"]["true_label_prob"].value
    assert numbers["true_label_prob/mean/change_p_adjusted"] == report.comparison["t"]["true_label_prob"].p_adjusted
    assert numbers["quantization/bits_per_weight_coded"] == 3.5 and "quantization/load_seconds" not in numbers
    assert numbers["costs/scoring_quantized/tokens_per_second"] == 900.0
    assert (summary["verdict"], summary["verdict_sentence"]) == (report.verdict.verdict, report.verdict.sentence)
    assert {"samples", "numbers", "report"} <= stored["keys"] and len(stored["keys"]) < 100
    assert "accuracy/mean/change_ci_low" in stored["hidden"] and "accuracy/mean/change" not in stored["hidden"]
    assert set(stored["panels"]) >= {"reliability/t", "deferral/t", "forest/accuracy", "forest/true_label_prob"}
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path
    _check_files(tmp_path, stored)


def _check_files(run_dir, stored) -> None:
    """Check the artifacts, what a user reads of charts and tables, and the page."""
    own = {artifact.type: artifact for artifact in stored["artifacts"] if artifact.type != "run_table"}
    assert {kind: json.loads(artifact.metadata) for kind, artifact in own.items()} == {
        "checkpoint": {"path": "/store/weights/a"},
        "records": {"checkpoint": own["checkpoint"].name},
        "report": {"records": own["records"].name},
    }
    assert {entry.path for entry in own["records"].manifest.contents} == {"records.parquet", "texts.parquet"}
    in_report = {entry.path for entry in own["report"].manifest.contents}
    assert {"report.html", "metrics.json", "comparison.json", "verdict.json", "quantization.json"} <= in_report

    def media(pattern: str) -> bytes:
        [path] = run_dir.glob(f"wandb/offline-run-*/files/media/{pattern}")
        return path.read_bytes()

    assert media("html/report_*.html") == (run_dir / "report.html").read_bytes()
    curves = json.loads(media("table/reliability/t_table_*.json"))
    assert {row[0] for row in curves["data"]} == {"perfectly calibrated", "full precision", "quantized"}
    forest = json.loads(media("table/forest/accuracy_table_*.json"))
    assert forest["columns"][:4] == ["task", "change", "ci_low", "ci_high"] and forest["data"][0][0] == "t (takes no part)"
    samples = json.loads(media("table/samples_*.json"))
    assert len(samples["data"]) == 30 and samples["data"][0][samples["columns"].index("prompt")] == "the prompt"


def test_a_run_in_full_precision_is_logged_without_changes(tmp_path):
    full, _, _ = paired_runs(20)
    report = build(tmp_path, full, None, METRIC, MARGINS, About("title"))
    with tracking.track_run(tracked_config(), {}, tmp_path, None, tmp_path / "log") as tracker:
        log_all(tracker, report, full, None, tmp_path)
    stored = read_back(tmp_path)
    assert tracker.warning is None and {"accuracy/mean", "accuracy/mean/ci_low", "reliability/t_table"} <= stored["keys"]
    assert not {key for key in stored["keys"] if "change" in key or key.startswith(("forest", "deferral", "verdict"))}


def test_no_two_settings_give_one_name():
    config = tracked_config()

    def name(settings=(), **changes) -> str:
        changed = dataclasses.replace(config, **changes)
        return tracking.run_name(changed, Labels(model="m", quantizer=changed.quant.name, settings=list(settings)))

    gptq = {"bits": 4, "group_size": 128, "symmetric": True, "desc_act": False, "damp_percent": 0.01}
    native, other = Gptq(**gptq, backend="native"), Gptq(**gptq, backend="gptqmodel")
    texts = [dataclasses.replace(config.calib, **change) for change in ({}, {"seed": 1}, {"name": "c4"}, {"nsamples": 9})]
    names = [name(quant=quant, calib=text) for quant in (native, other) for text in texts]
    names += [name(), name(["calib.seed=1"]), name(["quant=rtn4", "task.limit=5"]), name(["quant.damp_percent=0.1"])]
    assert len(set(names)) == len(names) and names[0] == "m/gptq4-native/own/text-1x8-seed0"


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
        tracker.log(None)
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
