"""What plan=true says of main memory is within 30% of what is taken, for a small and a larger model."""

from __future__ import annotations

import sys

import pytest

from tests.builders.limited_memory import save_deep, work_in
from tests.builders.marks import needs_transformers_5

pytestmark = [
    needs_transformers_5,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs a process's own peak of memory"),
]


@pytest.mark.parametrize(("width", "blocks"), [(64, 2), (640, 12)])
@pytest.mark.parametrize(("work", "quant"), [("score", "none"), ("quantize", "rtn4")])
def test_the_estimate_is_within_30_percent_of_what_is_taken(
    commands, own_tasks, calib_file, tmp_path, work, quant, width, blocks
):
    whole, _ = save_deep(tmp_path / "model", width, blocks)
    text = ["calib=text", f"calib.path={calib_file}", "calib.nsamples=4", "calib.seqlen=64"]
    task = [f"task.include_path={own_tasks}", "task.names=[tiny_pets]", "task.limit=1"]
    overrides = ["model=local", f"model.path={tmp_path / 'model'}", *text, *task, f"quant={quant}"]
    done = work_in(commands, tmp_path / "work", work, 0, *overrides)
    assert done["peak"] / 1.3 < done["estimate"] < done["peak"] * 1.3
    if work == "score":
        assert done["rise"] > whole
