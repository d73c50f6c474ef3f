"""Checkpoints made by the libraries that people use, paired with their parent."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

from bitsure import models, quantize
from bitsure.errors import UserError
from bitsure.other_quantizers import Prequantized
from bitsure.quantize import checkpoints
from bitsure.quantize.rtn import round_to_nearest
from bitsure.quantize.targets import block_linears, matrix
from bitsure.quantizers import Gptq, Rtn
from bitsure.store import Store
from tests.conftest import GPTQ_LIBRARY, needs_gptqmodel
from tests.families import FAMILIES, build
from tests.quantize.plans import plan
from tests.quantize.test_layouts import awq_pack

GPTQ = Gptq(bits=4, group_size=32, symmetric=True, backend=GPTQ_LIBRARY, desc_act=False, damp_percent=0.01)


@pytest.fixture(scope="module")
def gptq_checkpoint(tiny_model, calib_file, tmp_path_factory):
    """The library's own files and what we say of them when we make them ourselves."""
    folder = tmp_path_factory.mktemp("gptq")
    made = quantize.ensure(plan(tiny_model, GPTQ, calib_file), Store(folder / "store"), folder / "log")
    for extra in ("manifest.json", "quantization.json"):
        (made.checkpoint / extra).unlink()
    next(made.checkpoint.glob("*.safetensors")).rename(made.checkpoint / "model.safetensors")  # auto-gptq names it otherwise
    return made


def taken(parent, checkpoint, calib_file, tmp_path) -> quantize.Quantized:
    planned = plan(parent, Prequantized(path=str(checkpoint)), calib_file)
    quantize.check(planned, Store(tmp_path))
    return quantize.ensure(planned, Store(tmp_path / "store"), tmp_path / "log")


def test_gptqs_checkpoint_is_the_one_that_we_make(gptq_checkpoint, tiny_model, calib_file, tmp_path):
    found = taken(tiny_model, gptq_checkpoint.checkpoint, calib_file, tmp_path)
    assert found.checkpoint == gptq_checkpoint.checkpoint  # read where it is
    assert not list((tmp_path / "store").rglob("*.safetensors"))
    for key in ("modules_quantized", "bits_per_weight", "relative_error", "bytes_on_disk"):
        assert found.report[key] == gptq_checkpoint.report[key]
    assert found.report["quantizer"] == found.checkpoint.name and found.report["not_applied"] == []


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
    assert found.report["relative_error"] == gptq_checkpoint.report["relative_error"]
    assert found.report["other_tensors_rounded"] == [name]
    (old / "quantize_config.json").unlink()  # later files say it in config.json
    (old / "config.json").write_text(json.dumps(config | {"quantization_config": settings | {"quant_method": "gptq"}}))
    assert taken(tiny_model, old, calib_file, tmp_path / "2").report["layers"] == found.report["layers"]


def test_awq_as_autoawq_writes_it(tiny_model, calib_file, tmp_path):
    parent, _ = models.load(tiny_model, "float32")
    tensors = {name: tensor for name, tensor in parent.state_dict().items() if name != "lm_head.weight"}
    rounded = {name: round_to_nearest(linear.weight, Rtn(4, 32, False)) for name, linear in block_linears(parent).items()}
    for name, weight in rounded.items():
        tensors |= {f"{name}.qweight": awq_pack(weight.codes.T), f"{name}.qzeros": awq_pack(weight.zeros.T)}
        tensors[f"{name}.scales"] = weight.scales.T.contiguous()
        del tensors[f"{name}.weight"]
    checkpoint = tmp_path / "awq"
    checkpoint.mkdir()
    save_file(tensors, checkpoint / "model.safetensors")
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    config = json.loads((tiny_model / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    found = taken(tiny_model, checkpoint, calib_file, tmp_path)
    assert found.report["bits_per_weight"] == 4 + 20 / 32 and found.report["other_tensors_rounded"] == []
    checkpoints.put_into(parent, checkpoint)
    for name, linear in block_linears(parent).items():
        assert torch.equal(linear.weight, rounded[name].dequantize())


@pytest.mark.parametrize("layout", ["pack-quantized", "int-quantized"])
def test_compressed_tensors_as_llm_compressor_saves_it(tiny_model, calib_file, tmp_path, layout):
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig, preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams

    scheme = preset_name_to_scheme("W4A16" if layout == "pack-quantized" else "W8A8", ["Linear"])
    scheme.weights.group_size = 32 if layout == "pack-quantized" else None
    scheme.format = layout
    compressor = BaseCompressor.get_value_from_registry(layout)
    parent, _ = models.load(tiny_model, "float32")
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
    assert found.report["not_applied"] == ([] if layout == "pack-quantized" else ["activations"])
    checkpoints.put_into(parent, ready)
    for name, linear in block_linears(parent).items():
        assert torch.equal(linear.weight, expected[name].float()), name


@pytest.mark.parametrize("kind", ["nf4", "nf4-double", "fp4", "int8"])
def test_bitsandbytes_as_transformers_saves_it(tiny_model, calib_file, tmp_path, kind):
    pytest.importorskip("bitsandbytes")
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
        assert found.report["bits_per_weight"] == pytest.approx(bits[kind], abs=0.3)
    else:
        assert 4.125 < found.report["bits_per_weight"] < 4.2  # one scale of scales for each of these small layers
    assert found.report["not_applied"] == (["activations"] if kind == "int8" else [])
    ours, _ = models.load(tiny_model, "float32")
    checkpoints.put_into(ours, tmp_path / kind)
    for name, linear in block_linears(ours).items():
        assert torch.allclose(linear.weight, expected[name], rtol=1e-6, atol=0), name
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():  # its kernels round inputs to bfloat16 or int8
        logits = theirs(ids).logits
        assert torch.allclose(ours(ids).logits, logits, atol=0.05 * logits.abs().max())


@pytest.mark.parametrize("family", ["opt", "gpt2", "bloom", "gpt_neox", "llama"])
def test_families_from_bitsandbytes(family, tiny_model, calib_file, tmp_path):
    """Fused and transposed (Conv1D) layers, and OPT's projections outside the blocks, which are quantized too."""
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    model = save_family(family, tmp_path / "parent", tiny_model)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / "parent", quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map="cpu", dtype=torch.float32
    )
    theirs.save_pretrained(tmp_path / "ready")
    expected = {name: dequantized(layer) for name, layer in theirs.named_modules() if hasattr(layer, "compute_dtype")}
    found = taken(tmp_path / "parent", tmp_path / "ready", calib_file, tmp_path)
    outside = {f"{name}.weight" for name in expected.keys() - block_linears(model).keys()}
    assert set(found.report["other_tensors_rounded"]) == outside and bool(outside) == (family == "opt")
    checkpoints.put_into(model, tmp_path / "ready")
    for name, weight in expected.items():
        assert torch.equal(matrix(model.get_submodule(name)), weight), name


def test_a_checkpoint_whose_layers_were_passed_over_is_refused(tiny_model, calib_file, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    save_family("falcon", tmp_path / "parent", tiny_model)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / "parent", quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map="cpu", dtype=torch.float32
    )
    theirs.save_pretrained(tmp_path / "ready")  # transformers does not take Falcon's linear layers for such, and says nothing
    with pytest.raises(UserError, match="8 layers of parent are not quantized in it"):
        taken(tmp_path / "parent", tmp_path / "ready", calib_file, tmp_path)


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
    checkpoints.write(ready, rounded, others)
    shutil.copy(tmp_path / "parent" / "config.json", ready)
    tensors = load_file(ready / "model.safetensors")
    renamed = {
        key.removeprefix(f"{model.base_model_prefix}.").replace("lm_head.", "embed_out."): tensor
        for key, tensor in tensors.items()
    }
    save_file(renamed, ready / "model.safetensors")
    found = taken(tmp_path / "parent", ready, calib_file, tmp_path)
    assert found.report["modules_quantized"] == sorted(rounded) and found.report["other_tensors_rounded"] == []
    checkpoints.put_into(model, ready)
    assert all(torch.equal(matrix(layer), rounded[name].dequantize()) for name, layer in block_linears(model).items())


def save_family(family: str, path, tokenizer):
    model = build(family, **FAMILIES[family])
    model.save_pretrained(path)
    models.load_tokenizer(tokenizer).save_pretrained(path)
    return model


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


def another(tmp_path, tiny_model, **changes):
    """A model that differs from tiny_model in its config, saved with its tokenizer."""
    config = OPTConfig.from_pretrained(tiny_model)
    for name, value in changes.items():
        setattr(config, name, value)
    OPTForCausalLM(config).save_pretrained(tmp_path / "other")
    models.load_tokenizer(tiny_model).save_pretrained(tmp_path / "other")
    return tmp_path / "other"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ffn_dim": 96}, r"tensors differ, such as .*layers\.0\.fc1\.bias, \(128,\) there and \(96,\) here"),
        ({"num_hidden_layers": 1}, r"differ, such as .*layers\.1\.fc1\.bias, \(128,\) there and none here"),
        ({"vocab_size": 400}, r"such as lm_head\.weight, \(\d+, 64\) there and \(400, 64\) here"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_before_loading(
    gptq_checkpoint, tiny_model, calib_file, tmp_path, changes, said
):
    parent = another(tmp_path, tiny_model, **changes)
    with pytest.raises(UserError, match=said):
        quantize.check(plan(parent, Prequantized(path=str(gptq_checkpoint.checkpoint)), calib_file), Store(tmp_path))


def test_files_that_lie_about_their_content_are_refused(gptq_checkpoint, tiny_model, calib_file, tmp_path):
    copy = shutil.copytree(gptq_checkpoint.checkpoint, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    layer = "model.decoder.layers.1.fc2"
    planned = plan(tiny_model, Prequantized(path=str(copy)), calib_file)

    def save(**changed) -> None:
        save_file(
            {k: v for k, v in tensors.items() if k not in changed} | {k: v for k, v in changed.items() if v is not None},
            copy / "model.safetensors",
        )

    dense = {f"{layer}.{part}": None for part in ("qweight", "qzeros", "scales", "g_idx")}
    save(**dense, **{f"{layer}.weight": torch.zeros(64, 128)})
    with pytest.raises(UserError, match=rf"1 layers of tiny are not quantized in it: {layer}"):
        quantize.check(planned, Store(tmp_path))
    save(**{"model.decoder.embed_positions.weight": None})
    with pytest.raises(UserError, match=r"lacks model\.decoder\.embed_positions\.weight"):
        quantize.check(planned, Store(tmp_path))
    save(**{"model.decoder.embed_positions.weight": torch.zeros(3, 64)})
    with pytest.raises(UserError, match=r"embed_positions\.weight has the shape \(3, 64\), but \(1026, 64\)"):
        quantize.ensure(planned, Store(tmp_path), tmp_path / "log")
    save(more=torch.ones(3))
    with pytest.raises(UserError, match="tensors that this model does not have: more"):
        quantize.ensure(planned, Store(tmp_path), tmp_path / "log")


def test_biases_of_zeros_and_computed_buffers_may_be_more(gptq_checkpoint, tiny_model, tmp_path):
    copy = shutil.copytree(gptq_checkpoint.checkpoint, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"a.rotary_emb.inv_freq": torch.ones(3), "b.bias": torch.zeros(3)}, copy / "model.safetensors")
    model, _ = models.load(tiny_model, "float32")
    checkpoints.put_into(model, copy)
    save_file(tensors | {"b.bias": torch.ones(3)}, copy / "model.safetensors")
    with pytest.raises(UserError, match=r"does not have: model\.b\.bias"):
        checkpoints.put_into(model, copy)


def test_what_is_no_checkpoint_is_refused(tiny_model, calib_file, tmp_path):
    with pytest.raises(UserError, match=r"quant\.path=.*no such directory"):
        plan(tiny_model, Prequantized(path=str(tmp_path / "none")), calib_file)
    with pytest.raises(UserError, match="does not say how it is quantized"):
        quantize.check(plan(tiny_model, Prequantized(path=str(tiny_model)), calib_file), Store(tmp_path))
    marlin = tmp_path / "marlin"
    shutil.copytree(tiny_model, marlin)
    (marlin / "quantize_config.json").write_text(json.dumps({"bits": 4, "is_marlin_format": True}))
    with pytest.raises(UserError, match="checkpoint_format=marlin"):
        quantize.check(plan(tiny_model, Prequantized(path=str(marlin)), calib_file), Store(tmp_path))
    with pytest.raises(UserError, match=r"either quant\.path"):
        Prequantized()


def test_its_noise_control_is_of_the_parent(gptq_checkpoint, tiny_model, calib_file, tmp_path):
    planned = plan(tiny_model, Prequantized(path=str(gptq_checkpoint.checkpoint)), calib_file)
    found = quantize.ensure(planned, Store(tmp_path / "store"), tmp_path / "log")
    noisy = quantize.ensure(planned.noise(0), Store(tmp_path / "store"), tmp_path / "log")
    assert noisy.checkpoint != found.checkpoint and noisy.report["quantizer"].startswith("noise-")
    for name, layer in noisy.report["layers"].items():
        assert layer["output_error"] == pytest.approx(found.report["layers"][name]["output_error"], rel=0.01)


def test_another_models_checkpoint_of_the_same_shapes_is_refused(gptq_checkpoint, tiny_model, calib_file, tmp_path):
    torch.manual_seed(1)
    shutil.copytree(tiny_model, tmp_path / "sister")
    sister = OPTForCausalLM(OPTConfig.from_pretrained(tiny_model))
    with torch.no_grad():
        for layer in block_linears(sister).values():
            layer.weight.normal_(0, 0.2)
    sister.save_pretrained(tmp_path / "sister")
    with pytest.raises(UserError, match=r"is not quantized from sister, though its shapes are the same: 12 layers differ"):
        taken(tmp_path / "sister", gptq_checkpoint.checkpoint, calib_file, tmp_path)
