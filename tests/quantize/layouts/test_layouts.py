"""Published layouts, word by word, and as the libraries that write them read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.quantize.layouts.autoawq import unshuffle
from bitsure.quantize.layouts.known import EXPORTED, layout_of, read_settings
from bitsure.quantize.weights import IntegerWeight, Weight
from tests.builders.awq import awq_pack
from tests.builders.marks import library


def take(tensors: dict[str, torch.Tensor], settings: dict, where: Path) -> Mapping[str, Weight]:
    return layout_of(settings, where).take(tensors, settings, where)


def int32(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def test_awq_words():
    # AutoAWQ packs column 0 into the lowest nibble, then 2, 4, 6, 1, 3, 5, 7
    assert unshuffle(torch.tensor([[int32(0x75316420)]], dtype=torch.int32)).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_awq_by_its_definition(tmp_path):
    torch.manual_seed(0)
    codes, zeros = torch.randint(0, 16, (64, 24)), torch.randint(0, 16, (2, 24))  # (in, out), (groups, out)
    scales = torch.rand(2, 24).half()
    tensors = {"a.qweight": awq_pack(codes), "a.qzeros": awq_pack(zeros), "a.scales": scales, "a.bias": torch.ones(24)}
    found = take(tensors, {"quant_method": "awq", "bits": 4, "version": "gemm"}, tmp_path)
    expected = (codes - zeros.repeat_interleave(32, 0)) * scales.float().repeat_interleave(32, 0)
    assert torch.equal(found["a"].dequantize(), expected.T) and list(tensors) == ["a.bias"]
    assert found["a"].storage_bits == 64 * 24 * 4 + 2 * 24 * (16 + 4)


@pytest.mark.parametrize("layout", EXPORTED, ids=lambda layout: layout.quant_method)
@pytest.mark.parametrize(("bits", "symmetric", "size"), [(2, False, 32), (3, True, 16), (4, False, 64), (8, True, -1)])
def test_what_is_exported_is_read_as_it_was(layout, bits, symmetric, size, tmp_path):
    torch.manual_seed(0)
    group_of = torch.arange(64) // (64 if size < 0 else size)
    shape = (32, int(group_of.max()) + 1)
    zeros = torch.full(shape, 2 ** (bits - 1)) if symmetric else torch.randint(0, 2**bits, shape)
    codes = torch.randint(0, 2**bits, (32, 64), dtype=torch.int32)
    weight = IntegerWeight(bits=bits, codes=codes, scales=torch.rand(shape).half(), zeros=zeros.int(), group_of=group_of)
    tensors, settings = layout.put({"block.a": weight}, ["head"])
    assert settings["quant_method"] == layout.quant_method and layout.leaves_out("head", settings)
    [(name, back)] = layout.take(tensors, settings, tmp_path).items()
    assert name == "block.a" and torch.equal(back.dequantize(), weight.dequantize()) and not tensors


def test_columns_in_another_order_are_exported_for_gptq_alone():
    group_of = torch.tensor([0, 1] * 16)
    half = {"scales": torch.ones(32, 2).half(), "zeros": torch.full((32, 2), 8, dtype=torch.int32)}
    weight = IntegerWeight(bits=4, codes=torch.zeros(32, 32, dtype=torch.int32), group_of=group_of, **half)
    gptq, compressed = EXPORTED
    assert gptq.put({"a": weight}, [])[1]["desc_act"]
    with pytest.raises(UserError, match="a has groups of columns that do not follow each other"):
        compressed.put({"a": weight}, [])


def test_gptq_words_with_and_without_group_index(tmp_path):
    # one column of eight weights: codes 0 … 7; the zero point 8 is stored as 7
    tensors = {
        "a.qweight": torch.tensor([[0x76543210]], dtype=torch.int32),
        "a.qzeros": torch.tensor([[7], [6]], dtype=torch.int32),
        "a.scales": torch.tensor([[0.5], [2.0]]),
    }
    expected = [[-4.0, -3.5, -3.0, -2.5, -6.0, -4.0, -2.0, 0.0]]
    assert take(dict(tensors), {"quant_method": "gptq", "bits": 4}, tmp_path)["a"].dequantize().tolist() == expected
    tensors["a.g_idx"] = torch.tensor([0, 1] * 4, dtype=torch.int32)
    expected = [[-4.0, -12.0, -3.0, -8.0, -2.0, -4.0, -1.0, 0.0]]
    assert (
        take(dict(tensors), {"quant_method": "gptq", "bits": 4, "is_marlin_format": False}, tmp_path)["a"].dequantize().tolist()
        == expected
    )
    with pytest.raises(UserError, match="a has 1 × 32 bits for 8 weights a row, which are not 8 each"):
        take(dict(tensors), {"quant_method": "gptq", "bits": 8}, tmp_path)
    with pytest.raises(UserError, match="checkpoint_format=marlin"):
        take(dict(tensors), {"quant_method": "gptq", "bits": 4, "is_marlin_format": True}, tmp_path)


def test_bitsandbytes_words(tmp_path):
    # the first of two codes is in the upper half; two blocks of 64 run over rows of 48
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [2, 48]}).encode()
    codes = torch.arange(96) % 16
    tensors = {
        "a.weight": (codes[::2] * 16 + codes[1::2]).to(torch.uint8)[:, None],
        "a.weight.absmax": torch.tensor([2.0, 10.0]),
        "a.weight.quant_map": torch.arange(16) / 16,
        "a.weight.quant_state.bitsandbytes__nf4": torch.tensor(list(state), dtype=torch.uint8),
        "b.weight": torch.tensor([[127, -127, 0]], dtype=torch.int8),
        "b.SCB": torch.tensor([3.0]),
        "b.weight_format": torch.tensor(0, dtype=torch.uint8),
    }
    found = take(tensors, {"quant_method": "bitsandbytes"}, tmp_path)
    scales = torch.tensor([2.0] * 64 + [10.0] * 32)
    assert torch.equal(found["a"].dequantize(), (codes / 16 * scales).view(2, 48)) and not tensors
    assert found["a"].storage_bits == 96 * 4 + 2 * 32
    assert torch.allclose(found["b"].dequantize(), torch.tensor([[3.0, -3.0, 0.0]]))


def test_rows_of_bitsandbytes_in_tiles_are_refused(tmp_path):
    tensors = {"b.weight": torch.ones(1, 3, dtype=torch.int8), "b.SCB": torch.ones(1), "b.weight_format": torch.tensor(2)}
    with pytest.raises(UserError, match="b is stored in the tiles"):
        take(tensors, {"quant_method": "bitsandbytes"}, tmp_path)


def test_compressed_tensors_words(tmp_path):
    group = {"weights": {"num_bits": 4}}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}}
    tensors = {
        "a.weight_packed": torch.tensor([[0x76543210]], dtype=torch.int32),  # −8 … −1
        "a.weight_scale": torch.tensor([[1.0, 0.5]]),
        "a.weight_shape": torch.tensor([1, 8]),
        "a.input_scale": torch.tensor([1.0]),
        "a.weight_zero_point": torch.tensor([[0x7, 0x9]], dtype=torch.int32),  # −1, 1; packed along the rows
    }
    expected = [[-7.0, -6.0, -5.0, -4.0, -2.5, -2.0, -1.5, -1.0]]
    assert take(tensors, settings, tmp_path)["a"].dequantize().tolist() == expected and not tensors
    with pytest.raises(UserError, match="format=float-quantized"):
        take({}, settings | {"format": "float-quantized"}, tmp_path)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [None, 32])
def test_the_library_of_compressed_tensors_reads_the_same(tmp_path, bits, symmetric, group_size):
    library("compressed_tensors")
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    torch.manual_seed(bits)
    weight = torch.randn(10, 64)
    arguments = QuantizationArgs(
        num_bits=bits, symmetric=symmetric, group_size=group_size, strategy="group" if group_size else "channel"
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    groups = weight.view(10, -1, group_size or 64)
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
    state = {"weight": weight, "weight_scale": scale}
    state |= {} if symmetric else {"weight_zero_point": zero}
    stored = PackedQuantizationCompressor.compress(state, scheme)
    expected = PackedQuantizationCompressor.decompress(stored, scheme)["weight"]
    settings = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": bits}}},
    }
    found = take({f"a.{key}": tensor for key, tensor in stored.items()}, settings, tmp_path)
    assert torch.equal(found["a"].dequantize(), expected)
    assert 0 < (expected - weight).norm() / weight.norm() < 0.3


def test_settings_are_found_wherever_they_stand(tmp_path):
    with pytest.raises(UserError, match="does not say how it is quantized"):
        read_settings(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq", "bits": 4}}))
    assert read_settings(tmp_path)["quant_method"] == "awq"
    (tmp_path / "quant_config.json").write_text(json.dumps({"w_bit": 4, "q_group_size": 128, "version": "GEMM"}))
    assert read_settings(tmp_path)["quant_method"] == "awq"
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 128, "is_marlin_format": False}))
    assert read_settings(tmp_path)["quant_method"] == "gptq"
    with pytest.raises(UserError, match="quant_method=exl2"):
        take({}, {"quant_method": "exl2"}, tmp_path)
