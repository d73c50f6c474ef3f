"""Reports of finished runs and of the harness's own logs, those of the harness by real processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bitsure.cli import main
from tests.builders.stopped_runs import MOST


def test_the_report_is_made_again_from_records_alone(finished, tmp_path):
    run, again = finished.directory, tmp_path / "again"
    main(["report", str(run), "--out", str(again), "--metric", "paper_compat"])
    first, second = (json.loads((where / "metrics.json").read_text())["tiny_pets"] for where in (run, again))
    assert second["accuracy"]["value"] == first["accuracy"]["value"] and "paper_compat/ace" in second
    assert "Number " in (again / "report.html").read_text()  # the prompts


@pytest.mark.slow
def test_a_log_that_the_harness_itself_wrote_is_read_and_compared(tmp_path, tiny_model, own_tasks):
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--tasks",
        "tiny_pets",
        "--include_path",
        str(own_tasks),
    ]
    command += ["--model_args", f"pretrained={tiny_model},dtype=float32", "--output_path", str(tmp_path), "--log_samples"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST, cwd=own_tasks)
    assert done.returncode == 0, done.stderr[-2000:]
    [file] = tmp_path.rglob("samples_tiny_pets_*.jsonl")
    noisy = tmp_path / "noisy"
    noisy.mkdir()
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    for i, one in enumerate(samples):
        one["resps"][i % 3][0][0] = str(float(one["resps"][i % 3][0][0]) - 0.5)
    (noisy / file.name).write_text("".join(json.dumps(one) + "\n" for one in samples))
    command = [
        sys.executable,
        "-m",
        "bitsure.report",
        str(noisy),
        "--baseline",
        str(file.parent),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST)
    assert done.returncode == 0, done.stderr
    compared = json.loads((tmp_path / "out" / "comparison.json").read_text())["tiny_pets"]
    # the right choice, 0, 1 or 2 in turn, lost half a nat
    assert compared["questions_joined"]["value"] == 20 and compared["harm"]["value"] == pytest.approx(-0.5, abs=1e-9)
    assert "report   " in done.stdout
