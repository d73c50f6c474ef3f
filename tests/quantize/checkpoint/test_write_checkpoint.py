from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar, Self

import pytest
import torch
from safetensors.torch import save_file

from bitsure.base.errors import UserError
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.read_checkpoint import iterate_weights, read_checkpoint
from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears
from bitsure.quantize.weights import CodebookWeight, DenseWeight, IntegerWeight, Weight
from bitsure.quantize.weights.codebook import QuantizedScales


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_integer_weights_come_back_from_disk_exactly(tmp_path, bits, symmetric):
    torch.manual_seed(bits)
    weights = {
        "a": round_to_nearest(torch.randn(6, 20), Rtn(bits, 8, symmetric)),
        "b": round_to_nearest(torch.randn(5, 8), Rtn(bits, -1, symmetric)),
    }
    write_checkpoint(tmp_path, weights)
    back, others = read_checkpoint(tmp_path)
    assert others == {} and set(back) == {"a", "b"}
    for name, weight in weights.items():
        assert torch.equal(back[name].codes, weight.codes) and torch.equal(back[name].zeros, weight.zeros)
        assert torch.equal(back[name].dequantize(), weight.dequantize())


def test_formats_of_one_checkpoint_come_back_from_disk_exactly(tmp_path):
    absmax, nested = torch.tensor([0, 9], dtype=torch.uint8), QuantizedScales(torch.rand(256), torch.rand(1), 256, offset=0.5)
    weights: dict[str, Weight] = {
        "a": round_to_nearest(torch.randn(6, 20), Rtn(4, 8, True)),
        "b": round_to_nearest(torch.randn(5, 64), Rtn(format="mxfp4")),
        "c": CodebookWeight(torch.randint(0, 16, (2, 64), dtype=torch.uint8), torch.linspace(-1, 1, 16), absmax, 64, nested),
        "d": DenseWeight(torch.randn(2, 3), bits=2.5),
    }
    write_checkpoint(tmp_path, weights)
    back, others = read_checkpoint(tmp_path)
    total, each = iterate_weights(tmp_path)
    assert others == {} and total == 4 and set(dict(each)) == set(weights)
    for name, weight in weights.items():
        assert torch.equal(back[name].dequantize(), weight.dequantize()) and back[name].storage_bits == weight.storage_bits


@dataclass(frozen=True)
class Sign(Weight):
    """A format that a researcher wrote: ±1 with one scale a tensor."""

    suffix: ClassVar[str] = "sign"

    positive: torch.Tensor
    scale: torch.Tensor

    def dequantize(self) -> torch.Tensor:
        return torch.where(self.positive, self.scale, -self.scale)

    @property
    def storage_bits(self) -> float:
        return self.positive.numel() + 32

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"sign": self.positive, "scale": self.scale}

    @classmethod
    def from_tensors(cls, name, tensors, settings) -> Self:
        return cls(tensors.pop(f"{name}.sign"), tensors.pop(f"{name}.scale"))


def test_a_weight_format_of_ones_own_comes_back_from_disk(tmp_path):
    weight = Sign(torch.randn(3, 4) > 0, torch.tensor(0.5))
    write_checkpoint(tmp_path, {"a": weight})
    back = read_checkpoint(tmp_path)[0]["a"]
    assert isinstance(back, Sign) and torch.equal(back.dequantize(), weight.dequantize()) and back.storage_bits == 12 + 32


def test_a_checkpoint_changes_the_model_it_is_put_into(tiny_model, tmp_path):
    model, _ = load_model(tiny_model, "float32")
    weights = {name: round_to_nearest(linear.weight, Rtn(3, 32, True)) for name, linear in block_linears(model).items()}
    write_checkpoint(tmp_path, weights)
    before = model(torch.arange(5, 15)[None]).logits
    put_into(model, tmp_path)
    for name, linear in block_linears(model).items():
        assert torch.equal(linear.weight, weights[name].dequantize())
    assert not torch.allclose(model(torch.arange(5, 15)[None]).logits, before)


def test_a_checkpoint_of_another_model_is_refused(tiny_model, tmp_path):
    write_checkpoint(tmp_path, {"elsewhere": round_to_nearest(torch.randn(4, 4), Rtn(4, -1, True))})
    with pytest.raises(UserError, match="lacks layers of this model"):
        put_into(load_model(tiny_model, "float32")[0], tmp_path)


def test_zero_points_out_of_range_are_refused(tmp_path):
    weight = round_to_nearest(torch.rand(4, 8) + 1, Rtn(4, -1, True))
    write_checkpoint(tmp_path, {"a": dataclasses.replace(weight, zeros=weight.zeros * 0 + 15)})
    settings = tmp_path / "quantize_config.json"
    settings.write_text(settings.read_text().replace("gptq_v2", "gptq"))
    with pytest.raises(UserError, match="a has zero points"):
        read_checkpoint(tmp_path)


def test_unknown_formats_are_refused(tmp_path):
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "checkpoint_format": "marlin"}))
    with pytest.raises(UserError, match="checkpoint_format=marlin"):
        read_checkpoint(tmp_path)


def test_what_does_not_come_back_as_it_was_written_is_named(tmp_path, monkeypatch):
    def broken(tensors, path):
        save_file({name: tensor ^ 1 if name == "a.qweight" else tensor for name, tensor in tensors.items()}, path)

    monkeypatch.setattr("bitsure.quantize.checkpoint.write_checkpoint.save_file", broken)
    with pytest.raises(UserError, match=r"a: codes came back from disk otherwise than written"):
        write_checkpoint(tmp_path, {"a": round_to_nearest(torch.randn(4, 8), Rtn(4, -1, True))})


def test_a_layout_that_mixes_rows_up_is_noticed(tmp_path, monkeypatch):
    def mixed(weight, tensors=IntegerWeight.tensors):
        parts = tensors(weight)
        return parts | {"scales": parts["scales"].flip(1)}

    monkeypatch.setattr(IntegerWeight, "tensors", mixed)
    with pytest.raises(UserError, match="a: scales came back from disk otherwise than written"):
        write_checkpoint(tmp_path, {"a": round_to_nearest(torch.randn(4, 8), Rtn(4, -1, True))})
