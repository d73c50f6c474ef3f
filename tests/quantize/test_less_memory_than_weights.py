"""A checkpoint in several files is quantized in a process that may take less memory than its weights do.

Under the same limit a quantizer that needs the weights of all blocks in memory cannot load the model. Of a model whose .bin
file is larger than the limit the file is named.
"""

from __future__ import annotations

import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

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
    """The directory of a model, and the bytes of its weights."""
    path = tmp_path_factory.mktemp("deep") / "model"
    return path, save_deep(path)[0]


@pytest.fixture
def settings(calib_file, own_tasks):
    """The overrides that say what it is quantized with."""
    text = ["calib=text", f"calib.path={calib_file}", "calib.nsamples=4", "calib.seqlen=64"]
    return [*text, f"task.include_path={own_tasks}", "task.names=[tiny_pets]", "model=local"]


def quantize_in_three_quarters(commands, folder, path, whole, overrides):
    return work_in(commands, folder, "quantize", whole * 3 // 4, f"model.path={path}", *overrides)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_model_larger_than_the_limit_is_quantized(deep, commands, settings, tmp_path, name):
    path, whole = deep
    done = quantize_in_three_quarters(commands, tmp_path / name, path, whole, [*settings, *QUANTIZERS[name]])
    assert "refused" not in done, done
    assert done["reported"] <= done["rise"] < whole / 2


def test_a_quantizer_that_needs_all_blocks_in_memory_is_refused(deep, commands, settings, tmp_path):
    path, whole = deep
    done = quantize_in_three_quarters(commands, tmp_path / "whole", path, whole, [*settings, "quant=smooth-w4a4"])
    assert "Memory ran out while loading" in done["refused"]


def test_a_bin_file_that_is_larger_than_the_limit_is_refused(deep, commands, settings, tmp_path):
    path, whole = shutil.copytree(deep[0], tmp_path / "bin", ignore=shutil.ignore_patterns("*.safetensors*")), deep[1]
    weights = {name: value for file in deep[0].glob("*.safetensors") for name, value in load_file(file).items()}
    torch.save(weights, path / "pytorch_model.bin")
    done = quantize_in_three_quarters(commands, tmp_path / "work", path, whole, [*settings, *QUANTIZERS["rtn"]])
    assert f"Memory ran out while reading {path / 'pytorch_model.bin'} (RuntimeError: unable to mmap" in done["refused"]
    assert "`ulimit -d` allows this process" in done["refused"]
