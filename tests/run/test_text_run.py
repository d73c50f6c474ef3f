"""A text alone, from the settings to the report, and from the directory again."""

from __future__ import annotations

import pytest

from bitsure import results
from bitsure.records import read_saved_run
from bitsure.report.command import report_run
from bitsure.results import Comparison, MetricsByTask, Provenance
from bitsure.run import pipeline, stale
from tests.builders.sweep_commands import compose_errors, compose_valid
from tests.builders.texts import write_documents

pytestmark = pytest.mark.usefixtures("blank_pictures")

TASK = "text/local/harness"


def test_a_text_alone_is_a_run(tiny_model, calib_file, tmp_path, monkeypatch):
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    text = write_documents(tmp_path)
    settings = ["model=local", f"model.path={tiny_model}", "quant=rtn3", "task=none", "tracking.mode=disabled"]
    settings += ["text=local", f"text.path={text}", "text.protocol=harness", "text.window=48", "metric.resamples=100"]
    settings += ["calib=text", f"calib.path={calib_file}", "calib.nsamples=8", "calib.seqlen=64"]
    [cell] = compose_valid(*settings, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    pipeline.run(cell.config, cell.directory)
    metrics = results.read(cell.directory / "metrics.json", MetricsByTask)
    comparison = results.read(cell.directory / "comparison.json", Comparison)
    assert set(metrics) == set(comparison) == {TASK}
    assert comparison[TASK]["perplexity_ratio"].value != 1
    assert metrics[TASK]["perplexity"].value == pytest.approx(comparison[TASK]["perplexity"].quantized)
    cut = results.read(cell.directory / "provenance.json", Provenance).text
    assert (cut.window, cut.limit, cut.origin["sha256"][str(text)]) == (48, None, cut.sha256)
    assert len(read_saved_run(cell.directory).records) == 3
    again = report_run(cell.directory, out=tmp_path / "again")
    assert results.to_plain(again.comparison) == results.to_plain(comparison)
    assert stale.changed(cell.config, cell.directory) == []
    text.write_text(text.read_text() + "\n")
    assert stale.changed(cell.config, cell.directory) == [f"the text {text}"]


def test_neither_a_task_nor_a_text_is_refused(tiny_model, tmp_path):
    [error] = compose_errors("model=local", f"model.path={tiny_model}", "task=none", f"hydra.sweep.dir={tmp_path}")
    assert "task=none text=none: there is nothing to score" in error
