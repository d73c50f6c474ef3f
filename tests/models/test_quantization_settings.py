"""A checkpoint that is quantized already is no full-precision model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils.quantization_config import QuantizationMethod

from bitsure.base.errors import UserError
from bitsure.config.model import ModelSettings
from bitsure.models.load import check_files
from bitsure.models.locate import locate_model
from bitsure.models.quantization_settings import READABLE, quantization_settings
from bitsure.models.weight_content import check_floating

WEIGHT = "model.decoder.layers.1.fc2.weight"


def locate(path):
    return locate_model(ModelSettings(path=str(path)), None)


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def say(directory, **keys) -> None:
    config = directory / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | keys))


@pytest.mark.parametrize("method", [method.value for method in QuantizationMethod])
def test_every_method_of_transformers_is_named_with_two_ways_to_go_on(model, method):
    say(model, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(UserError, match="two ways to go on") as caught:
        locate(model)
    message = str(caught.value)
    assert f"model.path={model} is quantized already (quant_method={method})" in message
    assert (f"quant=prequantized quant.path={model}" in message) == (method in READABLE)
    assert "model=local model.path=PARENT" in message


@pytest.mark.parametrize(
    ("keys", "method"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"load_in_8bit": True, "load_in_4bit": False}}, "bitsandbytes"),
        ({"compression_config": {"config_groups": {"group_0": {}}}}, "compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 4}, "quantization_config": {"group_size": 64, "bits": 4}}, "mlx"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
    ],
)
def test_settings_that_stand_elsewhere_or_name_no_method(model, keys, method):
    say(model, **keys)
    with pytest.raises(UserError, match=rf"quant_method={method}\)"):
        locate(model)


@pytest.mark.parametrize(
    ("file", "settings", "method"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128}, "gptq"),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 128}, "awq"),
        ("hf_quant_config.json", {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}, "modelopt"),
    ],
)
def test_files_of_the_libraries(model, file, settings, method):
    (model / file).write_text(json.dumps(settings))
    with pytest.raises(UserError, match=rf"quant_method={method}\)"):
        locate(model)


def test_a_full_precision_model_has_no_settings(model):
    say(model, quantization_config=None)
    assert quantization_settings(model) is None
    assert locate(model).path == model


def test_empty_settings_are_named(model):
    say(model, quantization_config={})
    with pytest.raises(UserError, match=r"config\.json: quantization_config is empty, which does not say how"):
        locate(model)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_integer_weights_without_settings_are_named_and_masks_are_no_weights(model, kind):
    weights = load_file(model / "model.safetensors")
    masked = weights | {"model.decoder.mask.bias": torch.zeros(2, 2, dtype=torch.uint8)}
    rounded = weights | {WEIGHT: weights[WEIGHT].mul(100).to(torch.int8)}
    (model / "model.safetensors").unlink()
    for content in (masked, rounded):
        if kind == "bin":
            torch.save(content, model / "pytorch_model.bin")
        else:
            save_file(content, model / "model.safetensors", {"format": "pt"})
        if content is masked:
            check_floating(model)
    with pytest.raises(UserError, match=rf"{WEIGHT} holds integers \(I.*8\), as quantized weights do, and no settings"):
        check_files(model)
