"""What every weight format promises: dequantizing by hand, bits counted, and coming back from its own tensors."""

from __future__ import annotations

import pytest
import torch

from bitsure.quantize.weights import CodebookWeight, DenseWeight, IntegerWeight
from bitsure.quantize.weights.codebook import QuantizedScales


def test_dequantizing_by_hand():
    weight = IntegerWeight(
        bits=2,
        codes=torch.tensor([[0, 1, 2, 3]], dtype=torch.int32),
        scales=torch.tensor([[0.5, 2.0]]),
        zeros=torch.tensor([[1, 2]], dtype=torch.int32),
        group_of=torch.tensor([0, 0, 1, 1]),
    )
    assert weight.dequantize().tolist() == [[-0.5, 0.0, 0.0, 2.0]]
    assert weight.storage_bits == 4 * 2 + 2 * (32 + 2)
    assert weight.storage_bits / 4 == pytest.approx(19.0)


def test_floating_zero_points_are_stored_bits():
    weight = IntegerWeight(
        bits=4,
        codes=torch.zeros(2, 8, dtype=torch.int32),
        scales=torch.ones(2, 1).half(),
        zeros=torch.ones(2, 1).half(),
        group_of=torch.zeros(8).long(),
    )
    assert weight.storage_bits == 16 * 4 + 2 * 32 and weight.dequantize().tolist() == [[-1.0] * 8] * 2


def test_a_doubly_quantized_absmax():
    absmax = torch.tensor([0, 255], dtype=torch.uint8)
    nested = QuantizedScales(torch.arange(256) / 255, torch.tensor([2.0]), 256, offset=0.5)
    weight = CodebookWeight(torch.full((2, 64), 15, dtype=torch.uint8), torch.arange(16) / 15, absmax, 64, nested)
    assert weight.dequantize()[:, 0].tolist() == [0.5, 2.5]
    assert weight.storage_bits == 128 * 4 + 2 * 8 + 32 + 32
    back = CodebookWeight.from_tensors("a", {f"a.{part}": tensor for part, tensor in weight.tensors().items()}, {})
    assert torch.equal(back.dequantize(), weight.dequantize()) and back.storage_bits == weight.storage_bits


def test_a_dense_weight_takes_the_bits_that_it_is_given_or_those_of_its_type():
    values = torch.tensor([[0.5, -1.0]], dtype=torch.bfloat16)
    assert DenseWeight(values).storage_bits == 2 * 16 and DenseWeight(values, bits=2.25).storage_bits == 4.5
    tensors = {f"a.{part}": tensor for part, tensor in DenseWeight(values, bits=2.25).tensors().items()}
    back = DenseWeight.from_tensors("a", tensors, {})
    assert back.bits == 2.25 and torch.equal(back.values, values) and tensors == {}
