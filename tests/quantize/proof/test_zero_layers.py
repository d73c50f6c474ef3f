"""Pruned models: layers and blocks of zeros are on every grid, and stay zero."""

from __future__ import annotations

import pytest
import torch

from bitsure.base.store import Store
from bitsure.config.number_formats import Activations
from bitsure.models.load import load_model
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.noise import Noise
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears
from tests.builders.plans import plan
from tests.builders.quantizing import NATIVE


@pytest.fixture(scope="module")
def pruned(tiny_model, tmp_path_factory):
    """Its second block is zero, and so is one layer of the first."""
    model, tokenizer = load_model(tiny_model, "float32")
    for name, layer in block_linears(model).items():
        if ".layers.1." in name or name.endswith("out_proj"):
            torch.nn.init.zeros_(layer.weight)
    path = tmp_path_factory.mktemp("pruned") / "pruned"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize(
    "quant",
    [
        Rtn(4, 32, True),
        Rtn(format="mxfp4", activations=Activations(format="mxfp4")),
        Rtn(4, 32, False, transforms=["scale", "clip"]),
        Rtn(8, 32, True, transforms=["smooth"], activations=Activations(8)),
        Gptq(**NATIVE),
        Noise(like=Rtn(4, 32, True)),
    ],
    ids=lambda quant: quant.name,
)
def test_zeros_stay_and_the_rest_is_quantized(pruned, calib_file, tmp_path, quant):
    proof = ensure_quantized(plan(pruned, quant, calib_file), Store(tmp_path / "store"), tmp_path / "log").proof
    zero = {name for name in proof.layers if ".layers.1." in name or name.endswith("out_proj")}
    assert len(zero) == 7
    assert {name for name, layer in proof.layers.items() if layer.weight_error == 0} == zero
