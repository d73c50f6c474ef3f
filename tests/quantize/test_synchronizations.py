"""On a GPU every tensor of quantizing and of the proof lives where it should, and no batch of text is waited for."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import pytest
import torch

from bitsure.config.number_formats import KeysValues
from bitsure.config.rotation_settings import RotationSettings
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native import chain
from bitsure.quantize.native.chain_quantizer import ChainQuantizer
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk import blocks
from tests.builders.fake_gpu import fake_gpu
from tests.builders.families import FAMILIES, build
from tests.builders.quantizing import NATIVE, WINDOWS, nothing

MODEL = FAMILIES["opt"] | {"num_hidden_layers": 1, "hidden_size": 32, "ffn_dim": 64}
SOME = WINDOWS[:3]


def quantized(model: torch.nn.Module, quant: ChainQuantizer, folder: Path):
    """What is in the checkpoint, and its proof."""
    folder.mkdir(parents=True)
    chain.quantize(copy.deepcopy(model), quant, SOME, folder / "parts", folder, nothing)
    checkpoint = load_checkpoint(folder, model)
    return checkpoint.weights, prove(copy.deepcopy(model), checkpoint, SOME[:2])


def test_codes_are_those_of_a_cpu_and_no_batch_is_waited_for(tmp_path, monkeypatch):
    quant = Gptq(**NATIVE, transforms=["scale", "clip"])
    model = build("opt", **MODEL)
    monkeypatch.setattr(blocks, "TOKENS_AT_ONCE", SOME.shape[1])
    weights, proof = quantized(model, quant, tmp_path / "cpu")
    waits: list[Counter[str]] = []
    for tokens in (SOME.numel(), SOME.shape[1]):  # one batch, and as many as windows
        monkeypatch.setattr(blocks, "TOKENS_AT_ONCE", tokens)
        with fake_gpu() as gpu:
            on_gpu = quantized(model, quant, tmp_path / f"{tokens}")
            waits.append(gpu.waits)
    assert waits[0] == waits[1]
    for name, weight in on_gpu[0].items():
        assert torch.equal(weight.codes, weights[name].codes) and torch.equal(weight.scales, weights[name].scales)
    assert on_gpu[1].model_dump(exclude={"layers"}) == proof.model_dump(exclude={"layers"})


def test_one_block_at_a_time_is_on_the_gpu():
    model = build("opt", **MODEL | {"num_hidden_layers": 6, "hidden_size": 128, "ffn_dim": 512})
    size = sum(parameter.numel() * 4 for parameter in blocks.find_blocks(model)[1][0].parameters())
    with fake_gpu() as gpu:
        places = [next(block.parameters()).device.type for _, block, feed in blocks.walk(model, WINDOWS[:1]) if feed() is None]
    assert places == ["cuda"] * 6 and next(model.parameters()).device.type == "cpu"
    assert size < gpu.peak < 1.5 * size


ROTATED = Rtn(4, 32, True, transforms=["rotate"], rotation=RotationSettings(["r1", "r2", "r3", "r4"]), kv=KeysValues(8))
EXPERTS = Rtn(4, 32, False, transforms=["scale"])


@pytest.mark.slow
@pytest.mark.parametrize(("family", "quant"), [("llama", ROTATED), ("mixtral", EXPERTS)], ids=["rotated", "experts"])
def test_rotations_and_experts_are_where_they_should_be(family, quant, tmp_path):
    model = build(family, **FAMILIES[family] | {"num_hidden_layers": 1})
    weights, proof = quantized(model, quant, tmp_path / "cpu")
    with fake_gpu():
        on_gpu = quantized(model, quant, tmp_path / "gpu")
    for name, weight in on_gpu[0].items():
        assert torch.equal(weight.codes, weights[name].codes) and torch.equal(weight.scales, weights[name].scales)
    assert on_gpu[1].model_dump(exclude={"layers"}) == proof.model_dump(exclude={"layers"})
