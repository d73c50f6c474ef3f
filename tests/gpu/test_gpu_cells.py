"""Two runs of main.py on one GPU at the same time."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from bitsure.config.paths import PROJECT

pytestmark = pytest.mark.gpu
COMMAND = [
    "main.py",
    "model=pocket-300k",
    "quant=rtn3",
    "task.names=[pocket_recall]",
    "task.limit=10",
    "metric.resamples=100",
    "tracking.mode=disabled",
]


def test_two_cells_share_one_gpu_and_give_the_numbers_of_one(device, tmp_path):
    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, *COMMAND, f"model.device={device.type}", f"hydra.run.dir={tmp_path / name}"]
        settings = os.environ | {"BITSURE_STORE": str(tmp_path / f"store-{name}")}
        return subprocess.Popen(command, cwd=PROJECT, env=settings)

    together = [start("first"), start("second")]
    assert [process.wait(300) for process in together] == [0, 0]
    assert start("alone").wait(300) == 0
    columns = [pq.read_table(tmp_path / name / "records.parquet")["choice_logprobs"] for name in ("first", "second", "alone")]
    assert columns[0].equals(columns[1]) and columns[1].equals(columns[2])
