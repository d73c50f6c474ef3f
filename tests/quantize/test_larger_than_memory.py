"""A model of more than twice the memory that the process may have is quantized, from disk, block by block."""

from __future__ import annotations

import resource
import sys

import pytest

from tests.builders.larger_models import BLOCKS, run_limited, write_larger_model
from tests.builders.marks import needs_transformers_5

pytestmark = [
    pytest.mark.slow,
    needs_transformers_5,
    pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="needs a limit on address space"),
]

QUANTIZE = """
import sys, torch
from pathlib import Path
from bitsure.base.store import Store
from bitsure.quantize.check import check_plan
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.rtn import Rtn
from tests.builders.plans import plan
torch.set_num_threads(1)
name, model, small, text, out = sys.argv[1:]
quantizers = {
    "rtn": Rtn(4, 128, True),
    "gptq": Gptq(bits=4, group_size=128, symmetric=True, backend="native", desc_act=False, damp_percent=0.01),
    "awq": Rtn(4, 128, False, transforms=["scale", "clip"]),
}
def quantize(path):
    planned = plan(path, quantizers[name], text)
    check_plan(planned, Store(out))
    return ensure_quantized(planned, Store(out), Path(out) / "log").proof
quantize(small)  # loads the libraries
limit()
print(len(quantize(model).layers))
"""

LOAD = """
import sys, torch
from pathlib import Path
from bitsure.models.load import load_model
torch.set_num_threads(1)
model, small = map(Path, sys.argv[1:])
load_model(small, "float32", "cpu")
limit()
load_model(model, "float32", "cpu")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_larger_model(tmp_path_factory.mktemp("larger"))


@pytest.mark.parametrize("name", ["rtn", "gptq", "awq"])
def test_a_larger_model_is_quantized(model, tiny_model, calib_file, tmp_path, name):
    done = run_limited(QUANTIZE, name, model, tiny_model, calib_file, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == str(7 * BLOCKS)


def test_the_limit_is_too_low_for_the_whole_model(model, tiny_model):
    done = run_limited(LOAD, model, tiny_model)
    assert done.returncode and "Memory ran out while loading" in done.stderr, done.stderr[-3000:]
