"""What a sweep's page says it is about."""

from __future__ import annotations

import pytest

from bitsure.sweep.report.cell_results import read_cells
from bitsure.sweep.report.swept import send_command, sweep_title, tasks_asked
from tests.builders.sweeps import leave_unfinished, write_quantized


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "a sweep"
    for quantizer in ("rtn8", "gptq3"):
        write_quantized(folder, quantizer, 0, questions=40)
    return folder


def test_the_title_names_models_and_quantizers_and_counts_many(folder, tmp_path):
    assert sweep_title(read_cells(folder)) == "m × gptq3, rtn8"
    for k in range(5):
        leave_unfinished(tmp_path, str(k), state="failed", error="")
        (tmp_path / str(k) / "config.yaml").write_text(f"model: {{name: m{k}}}\nquant: {{name: rtn3}}\n", encoding="utf-8")
    assert sweep_title(read_cells(tmp_path)) == "5 models × rtn3"
    assert tasks_asked(read_cells(tmp_path)) == ""


def test_tasks_are_those_with_results(folder):
    assert tasks_asked(read_cells(folder)) == "1 task: t"


def test_offline_runs_have_a_command_that_sends_them_all(folder):
    cells = read_cells(folder)
    assert send_command(folder, cells) == ""
    (cells[0].directory / "wandb" / "offline-run-1-a").mkdir(parents=True)
    assert send_command(folder, cells) == f"wandb sync '{folder}'/*/wandb/offline-run-*"
