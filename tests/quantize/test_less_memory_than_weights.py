"""A checkpoint in several files is quantized in a process that may take less memory than its weights do."""

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
QUANTIZERS = {"rtn": ["quant=rtn4"], "gptq": ["quant=gptq4", "quant.backend=native"], "awq": ["quant=awq4"]}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """The overrides of a model, the bytes of its weights, and those of a block."""
    path = tmp_path_factory.mktemp("deep") / "model"
    return ["model=local", f"model.path={path}"], *save_deep(path)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_model_larger_than_the_limit_is_quantized(deep, commands, calib_file, own_tasks, tmp_path, name):
    model, whole, _ = deep
    text = ["calib=text", f"calib.path={calib_file}", "calib.nsamples=4", "calib.seqlen=64"]
    task = [f"task.include_path={own_tasks}", "task.names=[tiny_pets]"]
    done = work_in(commands, tmp_path / name, "quantize", whole * 3 // 4, *model, *text, *task, *QUANTIZERS[name])
    assert "refused" not in done, done
    assert done["reported"] <= done["rise"] < whole / 2
