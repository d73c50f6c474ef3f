"""A model of more than twice the memory that its process may take is scored from disk, and its records are those of memory."""

from __future__ import annotations

import sys

import pytest

from tests.builders.limited_memory import save_deep, work_in
from tests.builders.marks import needs_transformers_5

pytestmark = [
    needs_transformers_5,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on data"),
]
ON_DISK = ["model.device_map=auto", "model.max_memory=[cpu:8MB]"]


def test_from_disk_the_records_are_the_same_and_in_memory_the_model_does_not_load(commands, own_tasks, tmp_path):
    whole, _ = save_deep(tmp_path / "model")
    allowed = whole * 2 // 5
    task = [f"task.include_path={own_tasks}", "task.names=[tiny_pets]", "task.limit=4", "quant=none"]
    model = ["model=local", f"model.path={tmp_path / 'model'}", *task]
    in_memory = work_in(commands, tmp_path / "memory", "score", 0, *model)
    on_disk = work_in(commands, tmp_path / "disk", "score", allowed, *model, *ON_DISK)
    assert "refused" not in on_disk, on_disk
    records = [(tmp_path / place / "records.parquet").read_bytes() for place in ("memory", "disk")]
    assert records[0] == records[1]
    assert on_disk["rise"] < allowed < whole / 2 < whole < in_memory["rise"]
    refused = work_in(commands, tmp_path / "refused", "score", allowed, *model)
    assert "Memory ran out while loading" in refused["refused"]
