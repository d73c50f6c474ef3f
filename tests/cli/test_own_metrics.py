"""A metric of a user's own, from a file beside their `--config-dir`, goes wherever ours go."""

from __future__ import annotations

import json

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bitsure.cli import main as command

pytestmark = pytest.mark.usefixtures("blank_pictures")

METRICS = """
from pathlib import Path

Path("imported").touch()


def double_confidence(questions):
    return 2 * questions.confidence
"""


@pytest.fixture
def own_metric(tmp_path):
    """An option `metric=mine` and its function; the module leaves a file `imported` where it is imported."""
    (tmp_path / "my_conf" / "metric").mkdir(parents=True)
    (tmp_path / "my_conf" / "metric" / "mine.yaml").write_text(
        "defaults: [standard, _self_]\nresamples: 100\nown: {twice: my_metrics.double_confidence}\n"
    )
    (tmp_path / "my_metrics.py").write_text(METRICS)
    return ["--config-dir", "my_conf", "metric=mine"]


@pytest.mark.slow
def test_a_sweep_measures_compares_and_reports_it(bitsure, tiny, own_metric, tmp_path):
    done = bitsure("-m", *own_metric, *tiny, "quant=rtn3,rtn2", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    [run_dir] = (tmp_path / "sweep").glob("*rtn3*")
    numbers = {
        name: json.loads((run_dir / f"{name}.json").read_text()) for name in ("metrics", "baseline_metrics", "comparison")
    }
    [task] = (name for name in numbers["metrics"] if name != "macro_average")
    for name in ("metrics", "baseline_metrics"):
        assert numbers[name][task]["twice"]["value"] == pytest.approx(2 * numbers[name][task]["confidence"]["value"])
    assert numbers["comparison"][task]["twice"]["value"] == pytest.approx(
        2 * numbers["comparison"][task]["confidence"]["value"]
    )
    assert 'class="text">twice</td>' in (run_dir / "report.html").read_text()
    table = pq.read_table(tmp_path / "sweep" / "sweep.parquet")
    rows = table.filter(pc.equal(table["metric"], "twice"))
    assert set(rows["quantizer"].to_pylist()) == {"none", "rtn3", "rtn2"} and rows["value"].null_count == 0
    assert "twice" in (tmp_path / "sweep" / "sweep.html").read_text()
    assert ",twice," in (tmp_path / "sweep" / "tables" / "study.csv").read_text()


@pytest.mark.slow
def test_a_finished_sweep_notices_that_the_function_changed(bitsure, tiny, own_metric, tmp_path):
    command = ("-m", *own_metric, *tiny, "quant=none", "hydra.sweep.dir=sweep")
    assert bitsure(*command).returncode == 0
    code = tmp_path / "my_metrics.py"
    code.write_text(code.read_text() + "\n# another text of it\n")
    done = bitsure(*command)
    assert done.returncode != 0 and "the code of metric.own.twice" in done.stdout + done.stderr


def test_it_is_refused_before_anything_is_scored(bitsure, tiny, own_metric, tmp_path):
    done = bitsure(*own_metric, *tiny, "metric.own.twice=my_metrics.triple", "hydra.run.dir=run")
    assert done.returncode == 1 and "metric.own.twice=my_metrics.triple: my_metrics has no triple" in done.stderr
    assert not (tmp_path / "store" / "records").exists()


def test_a_report_imports_nothing_that_a_run_directory_names(bitsure, tiny, own_metric, tmp_path, monkeypatch, caplog):
    assert bitsure(*own_metric, *tiny, "hydra.run.dir=run").returncode == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # it could be imported
    (tmp_path / "imported").unlink()
    command(["report", "run", "--out", "again"])
    assert not (tmp_path / "imported").exists() and "The run's own metrics are left out: twice." in caplog.text
    again, first = ((tmp_path / name / "metrics.json").read_text() for name in ("again", "run"))
    assert "twice" not in again and "twice" in first
    command(["report", "run", "--out", "asked", "--config-dir", "my_conf", "--metric", "mine"])
    assert (tmp_path / "imported").exists() and (tmp_path / "asked" / "metrics.json").read_text() == first
