"""Quantizing on a GPU: codes beside a CPU's, and packed kernels."""

from __future__ import annotations

import math

import pytest
import torch

from bitsure.base.store import Store
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
from bitsure.quantize.libraries.bnb import Bnb
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.libraries.hqq import Hqq
from bitsure.quantize.make import Quantized, ensure_quantized
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.quantizer import Quantizer
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.gpu import CONTEXT, LINES, POCKET, on_device, process_without_gpu, scoring_requests
from tests.builders.marks import library
from tests.builders.plans import plan
from tests.builders.quantizing import NATIVE

pytestmark = pytest.mark.gpu
QUANTIZERS: dict[str, Quantizer] = {
    "rtn": Rtn(4, 32, True),
    "gptq": Gptq(**NATIVE),
    "gptq, desc_act": Gptq(**NATIVE | {"desc_act": True}),
    "gptqmodel": Gptq(**NATIVE | {"backend": "gptqmodel"}),
    "awq": Rtn(4, 32, False, transforms=["scale", "clip"]),
    "bitsandbytes": Bnb("nf4"),
    "hqq": Hqq(4, 64),
}
LIBRARIES = {"gptqmodel": "gptqmodel", "bitsandbytes": "bitsandbytes", "hqq": "hqq"}
# Round to nearest does the same operations on each weight by itself, and these two libraries are given main memory's weights;
# the others add up calibration's sums.
SAME_CODES = {"rtn", "bitsandbytes", "hqq"}


def quantized(quant: Quantizer, calib_file, folder) -> Quantized:
    return ensure_quantized(plan(POCKET, quant, calib_file), Store(folder / "store"), folder / "log")


@pytest.fixture(scope="module")
def without_gpu():
    with process_without_gpu() as process:
        yield process


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_are_a_cpus_or_as_good(name, device, without_gpu, calib_file, tmp_path):
    """Sums of float32 come in another order on a GPU; GPTQ carries each difference on into the columns that follow."""
    if name in LIBRARIES:
        library(LIBRARIES[name])
    on_cpu = without_gpu.submit(quantized, QUANTIZERS[name], calib_file, tmp_path / "cpu")
    there, here = quantized(QUANTIZERS[name], calib_file, tmp_path / "device"), on_cpu.result(300)
    model = on_device(torch.device("cpu"))[0]
    weights = [load_checkpoint(made.checkpoint, model).weights for made in (there, here)]
    codes = [torch.cat([weight.compressible_codes().codes.flatten() for weight in side.values()]) for side in weights]
    differ = (codes[0] != codes[1]).float().mean().item()
    errors = [math.fsum(layer.output_error for layer in made.proof.layers.values()) for made in (there, here)]
    LINES.append(f"{name}: {differ:.3%} of the codes differ from the CPU's; output error {errors[0] / errors[1]:.4f} of its")
    assert differ == 0 or name not in SAME_CODES
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_packed_kernels_score_as_the_unpacked_weights_do(device, calib_file, tmp_path):
    gptqmodel = library("gptqmodel") and pytest.importorskip("bitsure.quantize.libraries.gptqmodel")
    from bitsure.base import terminal
    from bitsure.quantize.checkpoint.apply_checkpoint import put_into

    checkpoint = quantized(QUANTIZERS["gptqmodel"], calib_file, tmp_path).checkpoint
    with terminal.output_to(tmp_path / "log"):
        packed = gptqmodel.load_packed(checkpoint, "float16", str(device))
    assert {tensor.device.type for tensor in packed.state_dict().values()} == {device.type}
    unpacked = on_device(device)[0]
    put_into(unpacked, checkpoint)
    requests = scoring_requests()[:24]
    for ours, theirs in zip(*(LocalEngine(model, CONTEXT).score(requests) for model in (unpacked, packed)), strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=0.5, rel=1e-2)
