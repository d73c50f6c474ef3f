"""Checkpoints in which layers have settings of their own, are left out, or lie outside the blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.libraries.prequantized import Prequantized
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.noise import Noise
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears
from bitsure.results.quantization import Quantization
from tests.builders.awq import awq_pack
from tests.builders.marks import library, needs_gptqmodel
from tests.builders.plans import plan, taken

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2"}
LEFT_OUT = ["model.decoder.layers.0.fc2", "model.decoder.layers.1.fc2"]


@pytest.fixture
def parent(tiny_model):
    return load_model(tiny_model, "float32")[0]


def save(directory: Path, tiny_model: Path, tensors: dict[str, torch.Tensor], settings: dict) -> Path:
    directory.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    config = json.loads((tiny_model / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return directory


def kept_layers(proof: Quantization) -> list[str]:
    return [name for name in proof.modules_skipped if ".layers." in name]


def others(model) -> dict[str, torch.Tensor]:
    """All tensors but the head, which is tied, and the blocks' matrices."""
    layers = {f"{name}.weight" for name in block_linears(model)}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in layers and name != "lm_head.weight"}


def gptq(model, bits: dict[str, int], left_out: str = "-") -> dict[str, torch.Tensor]:
    """Tensors in the layout of GPTQ: 4 bits, but for layers whose name has a key of `bits`."""
    tensors = others(model)
    for name, layer in block_linears(model).items():
        if left_out in name:
            tensors[f"{name}.weight"] = layer.weight.detach()
            continue
        width = next((width for part, width in bits.items() if part in name), 4)
        weight = round_to_nearest(layer.weight, Rtn(width, 32, True))
        tensors |= {f"{name}.{part}": tensor for part, tensor in weight.tensors().items()}
    return tensors


def test_bits_a_layer_by_gptqmodels_dynamic(parent, tiny_model, calib_file, tmp_path):
    dynamic = {
        r"+:.*layers\.1\.fc2": {"bits": 8},
        ".*fc2": {"bits": 2},
        "^model.decoder.layers.0.self_attn.q_proj$": {"bits": 3},
    }
    tensors = gptq(parent, {"layers.1.fc2": 8, "fc2": 2, "layers.0.self_attn.q_proj": 3})
    ready = save(tmp_path / "mixed", tiny_model, tensors, GPTQ | {"dynamic": dynamic})
    proof = taken(tiny_model, ready, calib_file, tmp_path).proof
    errors = {name: layer.weight_error for name, layer in proof.layers.items()}
    assert errors["model.decoder.layers.1.fc2"] < 0.01 and errors["model.decoder.layers.0.fc2"] > 0.3
    assert 0.15 < errors["model.decoder.layers.0.self_attn.q_proj"] < 0.3
    put_into(parent, ready)
    expected, _ = load_model(tiny_model, "float32")
    for name, width in {
        "model.decoder.layers.1.fc2": 8,
        "model.decoder.layers.0.fc2": 2,
        "model.decoder.layers.1.fc1": 4,
    }.items():
        weight = round_to_nearest(expected.get_submodule(name).weight, Rtn(width, 32, True)).dequantize()
        assert torch.equal(parent.get_submodule(name).weight, weight)


@pytest.mark.parametrize(
    "settings",
    [
        {"dynamic": {"-:.*fc2": {}, "+:.*": {"bits": 4}}},
        {"modules_in_block_to_quantize": [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["out_proj"], ["fc1"]]},
    ],
)
def test_layers_that_gptqs_settings_leave_out_keep_their_weights(parent, tiny_model, calib_file, tmp_path, settings):
    ready = save(tmp_path / "skipped", tiny_model, gptq(parent, {}, "fc2"), GPTQ | settings)
    quantized = taken(tiny_model, ready, calib_file, tmp_path)
    proof = quantized.proof
    assert proof.modules_quantized == sorted(set(block_linears(parent)) - set(LEFT_OUT))
    assert kept_layers(proof) == LEFT_OUT
    assert proof.bits_per_weight == 4 + 20 / 32 and proof.other_tensors_rounded == []
    numbers = sum(layer.weight.numel() for name, layer in block_linears(parent).items() if name not in LEFT_OUT)
    assert proof.parameter_share == pytest.approx(numbers / sum(p.numel() for p in parent.parameters()))
    assert {name for name, layer in proof.layers.items() if layer.output_error == 0} == set(LEFT_OUT)
    planned = plan(tiny_model, Noise(like=Prequantized(path=str(ready))), calib_file)
    control = ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log").proof
    assert control.modules_quantized == proof.modules_quantized


def test_a_left_out_layer_is_read_as_the_checkpoint_has_it(parent, tiny_model, calib_file, tmp_path):
    tensors = gptq(parent, {}, "fc2")
    tensors |= {f"{name}.weight": tensors[f"{name}.weight"].bfloat16() for name in LEFT_OUT}
    ready = save(tmp_path / "skipped", tiny_model, tensors, GPTQ | {"dynamic": {"-:.*fc2": {}}})
    proof = taken(tiny_model, ready, calib_file, tmp_path).proof
    assert proof.other_tensors_rounded == [f"{name}.weight" for name in LEFT_OUT]
    assert all(0 < proof.layers[name].output_error < 0.01 for name in LEFT_OUT)
    put_into(parent, ready)
    assert all(torch.equal(parent.get_submodule(name).weight, tensors[f"{name}.weight"].float()) for name in LEFT_OUT)


def test_a_quantized_head_is_read_though_the_parents_is_tied(parent, tiny_model, calib_file, tmp_path):
    head = round_to_nearest(parent.lm_head.weight, Rtn(8, 32, True))
    tensors = gptq(parent, {}) | {f"lm_head.{part}": tensor for part, tensor in head.tensors().items()}
    ready = save(tmp_path / "head", tiny_model, tensors, GPTQ | {"lm_head": True, "dynamic": {"lm_head": {"bits": 8}}})
    proof = taken(tiny_model, ready, calib_file, tmp_path).proof
    assert "lm_head" in proof.modules_quantized and "lm_head" not in proof.modules_skipped
    assert proof.other_tensors_rounded == ["lm_head.weight"]
    inside = sum(layer.weight.numel() for layer in block_linears(parent).values())
    outside = parent.lm_head.weight.numel()
    bits = 4.625 * inside + 8.75 * outside
    assert proof.bits_per_weight == pytest.approx(bits / (inside + outside))
    embedding = parent.get_input_embeddings().weight.detach().clone()
    put_into(parent, ready)
    assert torch.equal(parent.lm_head.weight, head.dequantize())
    assert torch.equal(parent.get_input_embeddings().weight, embedding)


@pytest.mark.parametrize("settings", [{"modules_to_not_convert": ["fc2"]}, {"dynamic": {"-:.*fc2": {}}}])
def test_modules_that_awq_does_not_convert(parent, tiny_model, calib_file, tmp_path, settings):
    tensors = others(parent)
    for name, layer in block_linears(parent).items():
        weight = round_to_nearest(layer.weight, Rtn(4, 32, False))
        packed = {"qweight": awq_pack(weight.codes.T), "qzeros": awq_pack(weight.zeros.T), "scales": weight.scales.T}
        parts = {"weight": layer.weight.detach()} if name in LEFT_OUT else packed
        tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    ready = save(tmp_path / "awq", tiny_model, tensors, {"quant_method": "awq", "bits": 4, "version": "gemm"} | settings)
    assert [
        name for name in taken(tiny_model, ready, calib_file, tmp_path).proof.modules_skipped if "layers" in name
    ] == LEFT_OUT


@pytest.mark.parametrize(
    "leaves_out", [{"ignore": ["lm_head", r"re:.*\.fc2$"]}, {"ignore": LEFT_OUT}, {"targets": [r"re:.*(_proj|fc1)"]}]
)
def test_several_config_groups_of_compressed_tensors(parent, tiny_model, calib_file, tmp_path, leaves_out):
    library("compressed_tensors")
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    def scheme(targets: list[str], bits: int, group_size: int | None, layout: str) -> QuantizationScheme:
        strategy = "group" if group_size else "channel"
        weights = QuantizationArgs(num_bits=bits, group_size=group_size, strategy=strategy)
        return QuantizationScheme(targets=targets, weights=weights, format=layout)

    others_targets = leaves_out.get("targets", ["Linear"])
    groups = {
        "group_0": scheme([r"re:.*q_proj$", r"re:.*k_proj$"], 8, None, "int-quantized"),
        "group_1": scheme(others_targets, 4, 32, "pack-quantized"),
    }
    tensors, expected = others(parent), {}
    for name, layer in block_linears(parent).items():
        if name in LEFT_OUT:
            tensors[f"{name}.weight"] = layer.weight.detach()
            continue
        group = groups["group_0" if name.endswith(("q_proj", "k_proj")) else "group_1"]
        compressor = BaseCompressor.get_value_from_registry(group.format)
        values = layer.weight.detach().view(len(layer.weight), -1, group.weights.group_size or layer.in_features)
        scale, zero = calculate_qparams(values.amin(-1), values.amax(-1), group.weights)
        stored = compressor.compress({"weight": layer.weight.detach(), "weight_scale": scale, "weight_zero_point": zero}, group)
        expected[name] = compressor.decompress(stored, group)["weight"]
        tensors |= {f"{name}.{part}": tensor for part, tensor in stored.items()}
    settings = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "config_groups": {name: group.model_dump(mode="json") for name, group in groups.items()},
        "ignore": leaves_out.get("ignore", []),
    }
    ready = save(tmp_path / "groups", tiny_model, tensors, settings)
    proof = taken(tiny_model, ready, calib_file, tmp_path).proof
    assert proof.modules_quantized == sorted(expected)
    assert kept_layers(proof) == LEFT_OUT
    put_into(parent, ready)
    assert all(torch.equal(parent.get_submodule(name).weight, weight) for name, weight in expected.items())


@pytest.mark.parametrize("pattern", ["fc2", r"model\.decoder\.layers\.\d\.fc2"])
def test_modules_that_bitsandbytes_skips(parent, tiny_model, calib_file, tmp_path, pattern):
    tensors = others(parent)
    for name, layer in block_linears(parent).items():
        absmax = layer.weight.detach().abs().amax(1)
        rows = (layer.weight.detach() / absmax[:, None] * 127).round().to(torch.int8)
        parts = {"weight": layer.weight.detach()} if name in LEFT_OUT else {"weight": rows, "SCB": absmax}
        tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    settings = {"load_in_8bit": True, "llm_int8_skip_modules": [pattern]}
    ready = save(tmp_path / "int8", tiny_model, tensors, settings)
    assert [
        name for name in taken(tiny_model, ready, calib_file, tmp_path).proof.modules_skipped if "layers" in name
    ] == LEFT_OUT


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "2 layers of tiny are not quantized in it: model.decoder.layers.0.fc2.*settings do not leave them out"),
        ({"dynamic": {"-:.*fc1": {}}}, "2 layers of tiny are not quantized in it"),
        ({"dynamic": {"-:*fc2": {}}}, "no regular expression"),
    ],
)
def test_layers_without_a_reason_are_refused(parent, tiny_model, calib_file, tmp_path, settings, message):
    ready = save(tmp_path / "skipped", tiny_model, gptq(parent, {}, "fc2"), GPTQ | settings)
    with pytest.raises(UserError, match=message):
        taken(tiny_model, ready, calib_file, tmp_path)


def test_other_formats_for_some_layers_are_refused_by_name(parent, tiny_model, calib_file, tmp_path):
    dynamic = {"dynamic": {".*fc2": {"checkpoint_format": "marlin"}}}
    ready = save(tmp_path / "marlin", tiny_model, gptq(parent, {}), GPTQ | dynamic)
    with pytest.raises(UserError, match="checkpoint_format=marlin; of GPTQ's, gptq and gptq_v2 are read"):
        taken(tiny_model, ready, calib_file, tmp_path)
    floats = {"group_1": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}}
    settings = {"quant_method": "compressed-tensors", "format": "naive-quantized", "config_groups": floats}
    ready = save(tmp_path / "floats", tiny_model, others(parent), settings)
    with pytest.raises(UserError, match="group_1 holds weights of type=float; of compressed-tensors', int is read"):
        taken(tiny_model, ready, calib_file, tmp_path)
    groups = {name: {"targets": ["Linear"], "format": name} for name in ("zebra", "yak", "naive-quantized", "ape", "ant")}
    ready = save(tmp_path / "groups", tiny_model, others(parent), settings | {"config_groups": groups})
    with pytest.raises(UserError, match="format=zebra; of compressed-tensors'"):  # the first one
        taken(tiny_model, ready, calib_file, tmp_path)


SCRIPT = """
import sys
from gptqmodel import GPTQModel, QuantizeConfig
parent, out, dynamic = sys.argv[1], sys.argv[2], {"-:.*fc2": {}, "+:.*fc1": {"bits": 8, "group_size": 16}}
config = QuantizeConfig(bits=4, group_size=32, sym=True, desc_act=False, dynamic=dynamic)
model = GPTQModel.load(parent, config, device="cpu")
ids = [[3 + (7 * i + j) % 200 for j in range(64)] for i in range(16)]
model.quantize([{"input_ids": each, "attention_mask": [1] * 64} for each in ids], batch_size=1)
model.save(out)
"""


@needs_gptqmodel
@pytest.mark.slow
def test_what_gptqmodel_saves(tiny_model, calib_file, tmp_path):
    environment = os.environ | {"GPTQMODEL_CPU_WORKERS": "2"}
    made = [sys.executable, "-c", SCRIPT, str(tiny_model), str(tmp_path / "saved")]
    subprocess.run(made, check=True, env=environment, capture_output=True, cwd=tmp_path)
    proof = taken(tiny_model, tmp_path / "saved", calib_file, tmp_path).proof
    assert kept_layers(proof) == LEFT_OUT
    errors = {name: layer.weight_error for name, layer in proof.layers.items()}
    assert all(errors[name] < 0.01 for name in errors if name.endswith("fc1"))
    assert all(0.05 < errors[name] < 0.2 for name in errors if name.endswith("_proj"))
