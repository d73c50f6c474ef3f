from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.load import empty_model
from bitsure.quantize.check import check_plan
from bitsure.quantize.checkpoint import disk_space
from bitsure.quantize.libraries.bnb import Bnb
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.libraries.hqq import Hqq
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.cast import Cast
from bitsure.quantize.native.rtn import Rtn
from tests.builders.marks import GPTQ_LIBRARY, library
from tests.builders.plans import plan

QUANTIZERS = {
    "rtn3": Rtn(3, 32, True),
    "rtn4-row": Rtn(4, -1, False),
    "rtn8-tensor": Rtn(8, 0, False),
    "awq4": Rtn(4, 32, False, transforms=["scale", "clip"]),
    "native": Gptq(bits=4, group_size=48, symmetric=True, backend="native", desc_act=False, damp_percent=0.01),
    "library": Gptq(bits=4, group_size=32, symmetric=True, backend=GPTQ_LIBRARY, desc_act=False, damp_percent=0.01),
    "float16": Cast("float16"),
    "bnb-nf4": Bnb("nf4"),
    "bnb-int8": Bnb("int8"),
    "hqq3": Hqq(3, 64),
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_estimate_is_what_is_written(tiny_model, calib_file, tmp_path, name):
    quant = QUANTIZERS[name]
    if isinstance(quant, Bnb | Hqq):
        library({Bnb: "bitsandbytes", Hqq: "hqq"}[type(quant)])
    made = ensure_quantized(plan(tiny_model, quant, calib_file), Store(tmp_path / "store"), tmp_path / "log")
    written = sum(tensor.nbytes for file in made.checkpoint.glob("*.safetensors") for tensor in load_file(file).values())
    estimate = quant.bytes_needed(empty_model(tiny_model), "float32")
    twice = 2 if quant.works_by_block else 1  # once more block by block, until it is done
    assert written * 0.95 < estimate / twice < written * 1.05


def test_too_small_a_disk_is_said_before_weights_are_loaded(tiny_model, calib_file, tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(path)
        return shutil._ntuple_diskusage(2**30, 2**30 - 100, 100)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(
        UserError, match=r"quant=rtn3-g32 will write about \d+ KiB into .*no.yet, but its disk has 100 bytes left"
    ):
        check_plan(plan(tiny_model, QUANTIZERS["rtn3"], calib_file), Store(tmp_path / "no" / "yet"))
    assert asked == [tmp_path]


def test_too_small_a_folder_for_the_unpacked_model_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30 - 100, 100))
    with pytest.raises(UserError, match=r"scoring\.engine=vllm will write about 288 bytes into .* the variable TMPDIR=DIR\."):
        disk_space.check_unpacked(torch.nn.Linear(8, 8), "float32")


def test_a_model_of_13b_needs_what_is_known_of_it():
    with torch.device("meta"):
        from transformers import OPTConfig, OPTForCausalLM

        config = OPTConfig(
            hidden_size=5120, word_embed_proj_dim=5120, ffn_dim=20480, num_hidden_layers=40, num_attention_heads=40
        )
        model = OPTForCausalLM(config)
    quant = Gptq(bits=4, group_size=128, symmetric=True, backend="gptqmodel", desc_act=False, damp_percent=0.01)
    assert 6.5e9 < quant.bytes_needed(model, "float16") < 7.5e9
    assert 25e9 < Cast("float16").bytes_needed(model, "float16") < 27e9
