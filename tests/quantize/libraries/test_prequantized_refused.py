"""Checkpoints that are not of the model, or not what they say, are refused, before loading where that can be."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.tokenizers import load_tokenizer
from bitsure.quantize.check import check_plan
from bitsure.quantize.libraries.prequantized import Prequantized
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.walk.targets import block_linears
from tests.builders.marks import library
from tests.builders.plans import plan, save_family, taken


def test_a_checkpoint_whose_layers_were_passed_over_is_refused(tiny_model, calib_file, tmp_path):
    library("bitsandbytes")
    from transformers import BitsAndBytesConfig

    save_family("falcon", tmp_path / "parent", tiny_model)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / "parent", quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map="cpu", dtype=torch.float32
    )
    theirs.save_pretrained(tmp_path / "ready")  # transformers does not take Falcon's linear layers for such, and says nothing
    with pytest.raises(UserError, match="8 layers of parent are not quantized in it"):
        taken(tmp_path / "parent", tmp_path / "ready", calib_file, tmp_path)


def another(tmp_path, tiny_model, **changes):
    """A model that differs from tiny_model in its config, saved with its tokenizer."""
    config = OPTConfig.from_pretrained(tiny_model)
    for name, value in changes.items():
        setattr(config, name, value)
    OPTForCausalLM(config).save_pretrained(tmp_path / "other")
    load_tokenizer(tiny_model).save_pretrained(tmp_path / "other")
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
        check_plan(plan(parent, Prequantized(path=str(gptq_checkpoint.checkpoint)), calib_file), Store(tmp_path))


def test_files_that_lie_about_their_content_are_refused(gptq_checkpoint, tiny_model, calib_file, tmp_path):
    copy = shutil.copytree(gptq_checkpoint.checkpoint, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    layer = "model.decoder.layers.1.fc2"
    planned = lambda: plan(tiny_model, Prequantized(path=str(copy)), calib_file)  # noqa: E731

    def save(**changed) -> None:
        save_file(
            {k: v for k, v in tensors.items() if k not in changed} | {k: v for k, v in changed.items() if v is not None},
            copy / "model.safetensors",
        )

    dense = {f"{layer}.{part}": None for part in ("qweight", "qzeros", "scales", "g_idx")}
    save(**dense, **{f"{layer}.weight": torch.zeros(64, 128)})
    with pytest.raises(UserError, match=rf"1 layers of tiny are not quantized in it: {layer}"):
        check_plan(planned(), Store(tmp_path))
    save(**{"model.decoder.embed_positions.weight": None})
    with pytest.raises(UserError, match=r"lacks model\.decoder\.embed_positions\.weight"):
        check_plan(planned(), Store(tmp_path))
    save(**{"model.decoder.embed_positions.weight": torch.zeros(3, 64)})
    with pytest.raises(UserError, match=r"embed_positions\.weight has the shape \(3, 64\), but \(1026, 64\)"):
        ensure_quantized(planned(), Store(tmp_path), tmp_path / "log")
    save(more=torch.ones(3))
    with pytest.raises(UserError, match="tensors that this model does not have: more"):
        ensure_quantized(planned(), Store(tmp_path), tmp_path / "log")


def test_what_is_no_checkpoint_is_refused(tiny_model, calib_file, tmp_path):
    with pytest.raises(UserError, match=r"quant\.path=.*no such directory"):
        plan(tiny_model, Prequantized(path=str(tmp_path / "none")), calib_file)
    with pytest.raises(UserError, match="does not say how it is quantized"):
        check_plan(plan(tiny_model, Prequantized(path=str(tiny_model)), calib_file), Store(tmp_path))
    marlin = tmp_path / "marlin"
    shutil.copytree(tiny_model, marlin)
    (marlin / "quantize_config.json").write_text(json.dumps({"bits": 4, "is_marlin_format": True}))
    with pytest.raises(UserError, match="checkpoint_format=marlin"):
        check_plan(plan(tiny_model, Prequantized(path=str(marlin)), calib_file), Store(tmp_path))
    with pytest.raises(UserError, match=r"either quant\.path"):
        Prequantized()


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
