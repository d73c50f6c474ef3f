"""Checkpoints made by the libraries that people use, paired with their parent."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
from bitsure.quantize.libraries.prequantized import Prequantized
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears, matrix
from tests.builders.awq import save_awq
from tests.builders.marks import library, needs_gptqmodel
from tests.builders.plans import plan, save_family, taken


def test_gptqs_checkpoint_is_the_one_that_we_make(gptq_checkpoint, tiny_model, calib_file, tmp_path):
    found = taken(tiny_model, gptq_checkpoint.checkpoint, calib_file, tmp_path)
    assert found.checkpoint == gptq_checkpoint.checkpoint  # read where it is
    assert not list((tmp_path / "store").rglob("*.safetensors"))
    for key in ("modules_quantized", "bits_per_weight", "relative_error", "bytes_on_disk"):
        assert getattr(found.proof, key) == getattr(gptq_checkpoint.proof, key)
    assert found.proof.quantizer == found.checkpoint.name and found.proof.not_applied == []


@needs_gptqmodel
def test_auto_gptqs_older_files(gptq_checkpoint, tiny_model, calib_file, tmp_path):
    old = shutil.copytree(gptq_checkpoint.checkpoint, tmp_path / "opt-4bit")
    settings = {"bits": 4, "group_size": 32, "damp_percent": 0.01, "desc_act": False, "sym": True, "true_sequential": True}
    settings |= {"model_name_or_path": None, "model_file_base_name": "model", "is_marlin_format": False}
    (old / "quantize_config.json").write_text(json.dumps(settings))
    config = json.loads((old / "config.json").read_text())
    config.pop("quantization_config", None)
    (old / "config.json").write_text(json.dumps(config))
    tensors = load_file(old / "model.safetensors")
    name = "model.decoder.final_layer_norm.weight"
    save_file(tensors | {name: tensors[name] + 0.5}, old / "gptq_model-4bit-32g.safetensors")
    (old / "model.safetensors").unlink()
    found = taken(tiny_model, old, calib_file, tmp_path)
    assert found.proof.relative_error == gptq_checkpoint.proof.relative_error
    assert found.proof.other_tensors_rounded == [name]
    (old / "quantize_config.json").unlink()  # later files say it in config.json
    (old / "config.json").write_text(json.dumps(config | {"quantization_config": settings | {"quant_method": "gptq"}}))
    assert taken(tiny_model, old, calib_file, tmp_path / "2").proof.layers == found.proof.layers


def test_awq_as_autoawq_writes_it(tiny_model, calib_file, tmp_path):
    rounded = save_awq(tiny_model, tmp_path / "awq", group_size=32)
    found = taken(tiny_model, tmp_path / "awq", calib_file, tmp_path)
    assert found.proof.bits_per_weight == 4 + 20 / 32 and found.proof.other_tensors_rounded == []
    model, _ = load_model(tiny_model, "float32")
    put_into(model, tmp_path / "awq")
    for name, linear in block_linears(model).items():
        assert torch.equal(linear.weight, rounded[name].dequantize())


@pytest.mark.parametrize("layout", ["pack-quantized", "int-quantized"])
def test_compressed_tensors_as_llm_compressor_saves_it(tiny_model, calib_file, tmp_path, layout):
    library("compressed_tensors")
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig, preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams

    scheme = preset_name_to_scheme("W4A16" if layout == "pack-quantized" else "W8A8", ["Linear"])
    scheme.weights.group_size = 32 if layout == "pack-quantized" else None
    scheme.format = layout
    compressor = BaseCompressor.get_value_from_registry(layout)
    parent, _ = load_model(tiny_model, "float32")
    tensors, expected = {n: t for n, t in parent.state_dict().items() if n != "lm_head.weight"}, {}
    for name, linear in block_linears(parent).items():
        groups = linear.weight.detach().view(len(linear.weight), -1, scheme.weights.group_size or linear.in_features)
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights)
        state = {"weight": tensors.pop(f"{name}.weight"), "weight_scale": scale, "weight_zero_point": zero}
        stored = compressor.compress(state, scheme)
        expected[name] = compressor.decompress(stored, scheme)["weight"]
        tensors |= {f"{name}.{part}": tensor for part, tensor in stored.items()}
    ready = tmp_path / "ready"
    ready.mkdir()
    save_file(tensors, ready / "model.safetensors")
    settings = QuantizationConfig(config_groups={"group_0": scheme}, format=layout, ignore=["lm_head"]).model_dump(mode="json")
    config = json.loads((tiny_model / "config.json").read_text())
    (ready / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    found = taken(tiny_model, ready, calib_file, tmp_path)
    assert found.proof.not_applied == ([] if layout == "pack-quantized" else ["activations"])
    put_into(parent, ready)
    for name, linear in block_linears(parent).items():
        assert torch.equal(linear.weight, expected[name].float()), name


@pytest.mark.parametrize("kind", ["nf4", "nf4-double", "fp4", "int8"])
def test_bitsandbytes_as_transformers_saves_it(tiny_model, calib_file, tmp_path, kind):
    library("bitsandbytes")
    from transformers import BitsAndBytesConfig

    four_bits = {"bnb_4bit_quant_type": kind[:3], "bnb_4bit_use_double_quant": kind == "nf4-double"}
    how = {"load_in_8bit": True} if kind == "int8" else {"load_in_4bit": True} | four_bits
    theirs = AutoModelForCausalLM.from_pretrained(
        tiny_model, quantization_config=BitsAndBytesConfig(**how), device_map="cpu", dtype=torch.float32
    )
    theirs.save_pretrained(tmp_path / kind)  # before it computes, which packs its weights anew
    expected = {name: dequantized(layer) for name, layer in theirs.named_modules() if name in block_linears(theirs)}
    found = taken(tiny_model, tmp_path / kind, calib_file, tmp_path)
    bits = {"nf4": 4.5, "fp4": 4.5, "int8": 8 + (32 + 8) * 640 / 49152}
    if kind in bits:
        assert found.proof.bits_per_weight == pytest.approx(bits[kind], abs=0.3)
    else:
        assert 4.125 < found.proof.bits_per_weight < 4.2  # one scale of scales for each of these small layers
    assert found.proof.not_applied == (["activations"] if kind == "int8" else [])
    ours, _ = load_model(tiny_model, "float32")
    put_into(ours, tmp_path / kind)
    for name, linear in block_linears(ours).items():
        assert torch.allclose(linear.weight, expected[name], rtol=1e-6, atol=0), name
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():  # its kernels round inputs to bfloat16 or int8
        logits = theirs(ids).logits
        assert torch.allclose(ours(ids).logits, logits, atol=0.05 * logits.abs().max())


@pytest.mark.parametrize("family", ["opt", "gpt2", "bloom", "gpt_neox", "llama"])
def test_families_from_bitsandbytes(family, tiny_model, calib_file, tmp_path):
    """Fused and transposed (Conv1D) layers, and OPT's projections outside the blocks, which are quantized too."""
    library("bitsandbytes")
    from transformers import BitsAndBytesConfig

    model = save_family(family, tmp_path / "parent", tiny_model)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / "parent", quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map="cpu", dtype=torch.float32
    )
    theirs.save_pretrained(tmp_path / "ready")
    expected = {name: dequantized(layer) for name, layer in theirs.named_modules() if hasattr(layer, "compute_dtype")}
    found = taken(tmp_path / "parent", tmp_path / "ready", calib_file, tmp_path)
    outside = {f"{name}.weight" for name in expected.keys() - block_linears(model).keys()}
    assert set(found.proof.other_tensors_rounded) == outside and bool(outside) == (family == "opt")
    put_into(model, tmp_path / "ready")
    for name, weight in expected.items():
        assert torch.equal(matrix(model.get_submodule(name)), weight), name


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "bloom"])
def test_names_of_published_files(family, tiny_model, calib_file, tmp_path):
    """Without the base model's prefix, and as transformers renames them while loading."""
    model = save_family(family, tmp_path / "parent", tiny_model)
    rounded = {name: round_to_nearest(matrix(layer), Rtn(4, 32, True)) for name, layer in block_linears(model).items()}
    others = {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if name.removesuffix(".weight") not in rounded and not (name == "lm_head.weight" and family != "gpt_neox")
    }
    ready = tmp_path / "ready"
    ready.mkdir()
    write_checkpoint(ready, rounded, others)
    shutil.copy(tmp_path / "parent" / "config.json", ready)
    tensors = load_file(ready / "model.safetensors")
    renamed = {
        key.removeprefix(f"{model.base_model_prefix}.").replace("lm_head.", "embed_out."): tensor
        for key, tensor in tensors.items()
    }
    save_file(renamed, ready / "model.safetensors")
    found = taken(tmp_path / "parent", ready, calib_file, tmp_path)
    assert found.proof.modules_quantized == sorted(rounded) and found.proof.other_tensors_rounded == []
    put_into(model, ready)
    assert all(torch.equal(matrix(layer), rounded[name].dequantize()) for name, layer in block_linears(model).items())


def test_biases_of_zeros_and_computed_buffers_may_be_more(gptq_checkpoint, tiny_model, tmp_path):
    copy = shutil.copytree(gptq_checkpoint.checkpoint, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"a.rotary_emb.inv_freq": torch.ones(3), "b.bias": torch.zeros(3)}, copy / "model.safetensors")
    model, _ = load_model(tiny_model, "float32")
    put_into(model, copy)
    save_file(tensors | {"b.bias": torch.ones(3)}, copy / "model.safetensors")
    with pytest.raises(UserError, match=r"does not have: model\.b\.bias"):
        put_into(model, copy)


def test_its_noise_control_is_of_the_parent(gptq_checkpoint, tiny_model, calib_file, tmp_path):
    planned = plan(tiny_model, Prequantized(path=str(gptq_checkpoint.checkpoint)), calib_file)
    found = ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")
    noisy = ensure_quantized(planned.noise(0), Store(tmp_path / "store"), tmp_path / "log")
    assert noisy.checkpoint != found.checkpoint and noisy.proof.quantizer.startswith("noise-")
    for name, layer in noisy.proof.layers.items():
        assert layer.output_error == pytest.approx(found.proof.layers[name].output_error, rel=0.01)


def dequantized(layer) -> torch.Tensor:
    from bitsandbytes import functional

    if layer.weight.dtype == torch.int8:
        return functional.int8_vectorwise_dequant(layer.weight.data, layer.weight.SCB)
    # as one long row: bitsandbytes 0.50.0 misplaces the blocks of rows of 32 or 96 on CPUs with AVX-512
    state, shape = layer.weight.quant_state, layer.weight.quant_state.shape
    state.shape = torch.Size([1, shape.numel()])
    found = functional.dequantize_4bit(layer.weight.data, state).view(shape)
    state.shape = shape
    return found
