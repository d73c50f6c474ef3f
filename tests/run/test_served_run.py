"""Runs with models of servers: pairs of all kinds, what their files say, and what they may not say."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.report.command import compare_runs
from bitsure.results import Provenance
from bitsure.run import pipeline, stale
from tests.builders.loopback_server import logprobs_of, serve_completions
from tests.builders.sweep_commands import compose_valid

pytestmark = pytest.mark.usefixtures("blank_pictures")

SECRET = "sk-very-secret"


@pytest.fixture(scope="module")
def tiny_logprobs(tiny_model):
    from transformers import AutoModelForCausalLM

    return logprobs_of(AutoModelForCausalLM.from_pretrained(tiny_model).eval())


def rounded(logprobs):
    """Another model: as if its logits were rounded."""
    import numpy as np

    def compute(ids):
        logits = np.round(logprobs(ids) * 2) / 2
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    return compute


def run(tmp_path, name, *settings):
    """Run a command in process and return its directory."""
    common = ["tracking.mode=disabled", "metric.resamples=100", "task.limit=4", f"hydra.sweep.dir={tmp_path / name}"]
    [cell] = compose_valid(*common, *settings)
    pipeline.run(cell.config, cell.directory)
    return cell


@pytest.fixture
def asked(own_tasks, tiny_model, tmp_path, monkeypatch):
    """The settings that all runs of a test have in common; the key stands in the environment."""
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("BITSURE_SERVER_KEY", SECRET)
    return [f"task.include_path={own_tasks}", "task.names=[tiny_pets]", f"model.path={tiny_model}"]


def test_a_pair_of_servers_is_a_run_that_says_so_and_nothing_secret(asked, tiny_logprobs, tmp_path, capsys):
    with (
        serve_completions(logprobs=tiny_logprobs, key=SECRET) as full,
        serve_completions(logprobs=rounded(tiny_logprobs), key=SECRET) as quantized,
    ):
        served = ["model=served", f"model.url={full.url}", *asked]
        pair = run(tmp_path, "pair", *served, "quant=served", f"quant.url={quantized.url}")
    origin = results.read(pair.directory / "provenance.json", Provenance)
    urls = {name: server.url for name, server in origin.servers.items()}
    assert urls == {"full precision": full.url, "quantized": quantized.url}
    assert (origin.model.dtype, origin.model.bytes_on_disk) == ("unknown", None)
    assert origin.weights["quant"]["method"] == "served"
    assert not (pair.directory / "quantization.json").exists()  # of weights that were not seen nothing is proved
    comparison = results.read(pair.directory / "comparison.json", results.Comparison)
    assert comparison["tiny_pets"]["nll"].value != 0
    assert "which does not show its weights; two equal requests differ by up to" in capsys.readouterr().out
    assert stale.changed(pair.config, pair.directory) == []
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files and not [file for file in files if SECRET.encode() in file.read_bytes()]


@pytest.mark.slow
def test_here_and_by_a_server_in_any_mix(asked, tiny_logprobs, tmp_path, capsys):
    calib = ["calib=random", "calib.nsamples=2", "calib.seqlen=16"]
    with serve_completions(logprobs=tiny_logprobs) as server:
        served = ["model=served", f"model.url={server.url}", *asked]
        mixed = run(tmp_path, "mixed", *served, "quant=rtn3", *calib)
        before = len(server.scored)
        alone = run(tmp_path, "alone", *served, "quant=none")
        assert len(server.scored) - before < 20  # the server is tested again, and no question is asked again
        parity = run(tmp_path, "parity", "model=local", *asked, "quant=served", f"quant.url={server.url}")
    assert (mixed.directory / "quantization.json").is_file() and (mixed.directory / "comparison.json").is_file()
    comparison = results.read(parity.directory / "comparison.json", results.Comparison)
    assert comparison["tiny_pets"]["nll"].value == pytest.approx(0, abs=1e-4)
    local = run(tmp_path, "local", "model=local", *asked, "quant=none")
    logprobs = [
        pq.read_table(cell.directory / "records.parquet")["token_logprobs"].combine_chunks().flatten().flatten().to_numpy()
        for cell in (alone, local)
    ]
    assert abs(logprobs[0] - logprobs[1]).max() < 1e-4
    compare_runs(local.directory, alone.directory)
    out = capsys.readouterr().out.replace("\n", " ")
    assert f"Only the engine differs: the first run's model was run here in float32, the second's run by {server.url}" in out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["task.names=[tiny_free]"], "servers and vLLM are only asked for log-probabilities"),
        (["text=pocket"], "text=pocket: texts are scored by models that run here"),
        (["quant=served", "quant.url={url}"], "quant.url={url} is the model that it would be compared with"),
    ],
)
def test_what_servers_are_not_asked_is_refused(asked, settings, message, tmp_path, monkeypatch):
    with serve_completions() as server:
        given = [setting.format(url=server.url) for setting in settings]
        with pytest.raises(UserError) as error:
            run(tmp_path, "refused", "model=served", f"model.url={server.url}", *asked, "quant=none", *given)
    assert message.format(url=server.url) in str(error.value)
