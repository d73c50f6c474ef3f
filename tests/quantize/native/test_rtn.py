from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn


def test_symmetric_by_hand():
    # 2 bits: codes 0 … 3, zero point 2, scale 2·3/3 = 2
    weight = round_to_nearest(torch.tensor([[3.0, -3.0, 0.9, -1.1]]), Rtn(2, -1, True))
    assert weight.codes.tolist() == [[3, 0, 2, 1]] and weight.zeros.tolist() == [[2]] and weight.scales.tolist() == [[2.0]]
    assert weight.dequantize().tolist() == [[2.0, -4.0, 0.0, -2.0]]


def test_asymmetric_by_hand():
    # range [−1, 2], scale 1, zero point 1
    weight = round_to_nearest(torch.tensor([[2.0, -1.0, 0.4, 1.2]]), Rtn(2, -1, False))
    assert weight.codes.tolist() == [[3, 0, 1, 2]] and weight.dequantize().tolist() == [[2.0, -1.0, 0.0, 1.0]]


def test_a_width_that_the_group_does_not_divide_leaves_a_shorter_group():
    weight = round_to_nearest(torch.randn(3, 10), Rtn(4, 4, True))
    assert weight.scales.shape == (3, 3) and weight.group_of.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


@given(st.integers(2, 8), st.sampled_from([-1, 3, 16]), st.booleans(), st.integers(0, 1000))
def test_errors_stay_within_half_a_step_and_codes_in_range(bits, group_size, symmetric, seed):
    generator = torch.Generator().manual_seed(seed)
    original = torch.randn(4, 20, generator=generator)
    weight = round_to_nearest(original, Rtn(bits, group_size, symmetric))
    assert weight.codes.min() >= 0 and weight.codes.max() < 2**bits
    step = weight.scales.float()[:, weight.group_of]
    # symmetric codes reach half a step less far on one side; rounding the scale to half precision adds a little
    assert ((weight.dequantize() - original).abs() <= step * (0.5 + 0.001 * 2**bits)).all()


def test_zeros_stay_zeros():
    for symmetric in (True, False):
        assert not round_to_nearest(torch.zeros(2, 8), Rtn(4, 4, symmetric)).dequantize().any()


@pytest.mark.parametrize("symmetric", [True, False])
def test_more_bits_are_closer(symmetric):
    torch.manual_seed(0)
    original = torch.randn(16, 128)
    errors = [(round_to_nearest(original, Rtn(b, 32, symmetric)).dequantize() - original).norm().item() for b in range(2, 9)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 30


@pytest.mark.parametrize("bits", [4, 8])
def test_small_weights_lose_no_more_than_large_ones(bits):
    torch.manual_seed(0)
    original = torch.randn(16, 128) * 0.02

    def error(weight):
        return ((round_to_nearest(weight, Rtn(bits, 32, True)).dequantize() - weight).norm() / weight.norm()).item()

    assert error(original / 40) == pytest.approx(error(original), rel=0.1)
