"""Runs whose models a stand-in for vLLM runs: the records of our own engine, and files that say who made them."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.report.command import compare_runs
from bitsure.results import Provenance
from bitsure.run import pipeline, stale
from tests.builders.fake_vllm import install_vllm
from tests.builders.sweep_commands import compose_valid

pytestmark = pytest.mark.usefixtures("blank_pictures")

VLLM = ("scoring.engine=vllm", "scoring.vllm.questions=2")


@pytest.fixture
def run(own_tasks, tiny_model, tmp_path, monkeypatch):
    """A function that runs a command in process and returns its cell."""
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    asked = [f"task.include_path={own_tasks}", "task.names=[tiny_pets]", f"model.path={tiny_model}", "model=local"]
    asked += ["tracking.mode=disabled", "metric.resamples=100", "task.limit=4"]
    asked += ["calib=random", "calib.nsamples=2", "calib.seqlen=16"]

    def run(name, *settings):
        [cell] = compose_valid(*asked, f"hydra.sweep.dir={tmp_path / name}", *settings)
        pipeline.run(cell.config, cell.directory)
        return cell

    return run


@pytest.mark.slow
def test_a_pair_by_vllm_has_the_records_of_our_own_engine(run, monkeypatch, capsys):
    calls = install_vllm(monkeypatch, runs_weights=True)
    ours, vllm = run("ours", "quant=rtn3"), run("vllm", "quant=rtn3", *VLLM)
    logprobs = [
        pq.read_table(cell.directory / file)["token_logprobs"].combine_chunks().flatten().flatten().to_numpy()
        for file in ("records.parquet", "baseline.parquet")
        for cell in (ours, vllm)
    ]
    assert calls.grace == [None] * len(calls.models)  # each has ended with its scoring
    assert abs(logprobs[0] - logprobs[1]).max() < 1e-4 and abs(logprobs[2] - logprobs[3]).max() < 1e-4
    origin = results.read(vllm.directory / "provenance.json", Provenance)
    assert {name: server.url for name, server in origin.servers.items()} == dict.fromkeys(
        ("full precision", "quantized"), "vLLM 0.32.0"
    )
    assert origin.servers["quantized"].stated["device"] == "cpu" and origin.model.dtype == "float32"
    assert stale.changed(vllm.config, vllm.directory) == []
    loaded = len(calls.models)
    again = run("again", "quant=rtn3", *VLLM)
    assert len(calls.models) == loaded  # records of the store need no model
    assert results.read(again.directory / "provenance.json", Provenance).servers == origin.servers
    compare_runs(ours.directory, vllm.directory)
    assert "Only the engine differs: the first run's model was run here in float32, the second's run here by vLLM" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_run_that_is_stopped_does_not_wait_for_vllms_end(run, monkeypatch):
    calls = install_vllm(monkeypatch, stops_after=0)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", "quant=none", *VLLM)
    assert calls.grace == [0]


def test_answers_that_a_model_writes_are_not_asked_of_vllm(run, monkeypatch):
    install_vllm(monkeypatch)
    with pytest.raises(UserError, match=r"answers are written by scoring\.engine=local"):
        run("written", "quant=none", "task.names=[tiny_free]", *VLLM)
