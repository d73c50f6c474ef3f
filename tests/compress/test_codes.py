from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bitsure.compress.codes import codes_of_activations, codes_of_weight, draw_rows
from bitsure.config.number_formats import Activations
from bitsure.quantize.weights import CodebookWeight, DenseWeight, IntegerWeight
from bitsure.quantize.weights.codebook import QuantizedScales

INTEGERS = IntegerWeight(
    bits=4,
    codes=torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=torch.int32),
    scales=torch.tensor([[1.0, 2.0], [3.0, 4.0]]).half(),
    zeros=torch.full((2, 2), 8, dtype=torch.int32),
    group_of=torch.tensor([0, 0, 1, 1]),
)


def test_integers_with_their_channels_groups_and_what_is_beside():
    found = codes_of_weight(INTEGERS, 100, 0)
    assert found.codes.tolist() == INTEGERS.codes.tolist() and found.codes.dtype == np.uint8
    assert found.units["channel"].tolist() == [[0], [1]]
    assert found.units["group"].tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert found.statistics == INTEGERS.scales.numpy().tobytes() + INTEGERS.zeros.numpy().astype(np.int16).tobytes()
    assert (found.stored_bits, found.statistics_bits, found.weights) == (8 * 4 + 4 * (16 + 4), 4 * (16 + 4), 8)


def test_act_order_and_one_scale_a_tensor():
    shuffled = dataclasses.replace(INTEGERS, group_of=torch.tensor([1, 0, 1, 0]))
    assert codes_of_weight(shuffled, 100, 0).units["group"].tolist() == [[1, 0, 1, 0], [3, 2, 3, 2]]
    single = dataclasses.replace(
        INTEGERS, scales=torch.ones(1, 1).half(), zeros=torch.ones(1, 1).int(), group_of=torch.zeros(4).long()
    )
    assert codes_of_weight(single, 100, 0).units["group"].tolist() == [[0]]


def test_padding_is_stored_but_is_no_weight():
    padded = dataclasses.replace(INTEGERS, width=3)
    assert codes_of_weight(padded, 100, 0).weights == 6 and codes_of_weight(padded, 100, 0).codes.size == 8


def test_rows_of_a_large_weight_are_drawn_by_the_seed_and_keep_their_groups():
    large = dataclasses.replace(
        INTEGERS,
        codes=torch.arange(400, dtype=torch.int32).view(100, 4) % 16,
        scales=torch.ones(100, 2).half(),
        zeros=torch.zeros(100, 2).int(),
    )
    found = codes_of_weight(large, 40, 1)
    rows = draw_rows(100, 4, 40, 1)
    assert found.codes.tolist() == large.codes.numpy()[rows].tolist() and found.share == 0.1
    assert found.units["group"].max() == 19 and len(found.statistics) == 100 * 2 * (2 + 2)  # of the whole tensor
    assert found.statistics_bits == pytest.approx(200 * (16 + 4))
    assert draw_rows(100, 4, 40, 2).tolist() != rows.tolist() and (np.diff(rows) > 0).all()
    assert draw_rows(100, 4, 1, 0).size == 1 and draw_rows(100, 4, 10**6, 0).size == 100


def test_codebooks_have_blocks_that_run_on_from_row_to_row():
    blocks = CodebookWeight(torch.arange(12, dtype=torch.uint8).view(2, 6), torch.linspace(-1, 1, 16), torch.ones(3), 4)
    found = codes_of_weight(blocks, 100, 0)
    assert found.units["group"].tolist() == [[0, 0, 0, 0, 1, 1], [1, 1, 2, 2, 2, 2]]
    assert (found.stored_bits, found.statistics) == (12 * 4 + 3 * 32, torch.ones(3).numpy().tobytes())
    nested = QuantizedScales(torch.linspace(-1, 1, 256), torch.ones(1), 4, 0.5)
    absmax = torch.tensor([1, 2, 3], dtype=torch.uint8)
    double = codes_of_weight(dataclasses.replace(blocks, absmax=absmax, nested=nested), 100, 0)
    assert double.statistics == b"\1\2\3" + np.float32([1.0, 0.5]).tobytes()
    assert double.statistics_bits == len(double.statistics) * 8


def test_dense_matrices_have_no_codes():
    assert codes_of_weight(DenseWeight(torch.ones(2, 2).bfloat16()), 100, 0) is None


STATES = torch.tensor([[127.5, -127.5, 1.4, 0.0], [0.0, 0.0, 0.0, 0.0], [2.55, -1.27, 0.0, 0.02]])


def test_activations_as_int8_with_one_scale_a_token_by_hand():
    found = codes_of_activations(STATES, Activations(8, symmetric=True), None, 100, 0)
    assert found.codes.tolist() == [[255, 0, 129, 128], [128] * 4, [255, 64, 128, 129]]
    assert found.units["token"].tolist() == [[0], [1], [2]] and found.units["channel"].tolist() == [[0, 1, 2, 3]]
    assert "group" not in found.units
    assert found.stored_bits == 12 * 8 + 3 * 16 and found.statistics_bits == 3 * 16


def test_asymmetric_activations_have_zero_points_and_groups():
    """Ranges [-3, 0] and [0, 6] in 2 bits: steps of 1 and 2, zero points 3 and 0."""
    states = torch.tensor([[-3.0, -1.0, 0.0, 6.0, 4.0]])
    found = codes_of_activations(states, Activations(2, 3), None, 100, 0)
    assert found.codes.tolist() == [[0, 2, 3, 3, 2]] and found.units["group"].tolist() == [[0, 0, 0, 1, 1]]
    assert found.statistics == np.float16([1, 2]).tobytes() + np.int16([3, 0]).tobytes()
    assert (found.stored_bits, found.weights) == (5 * 2 + 2 * (16 + 2), 5)


def test_a_fixed_range_has_one_scale_for_all_tokens():
    found = codes_of_activations(STATES, Activations(4, 0), torch.tensor([0.0, 15.0]), 100, 0)
    assert found.codes.tolist() == [[15, 0, 1, 0], [0] * 4, [3, 0, 0, 0]]
    assert found.stored_bits == 12 * 4 + 16 + 4


def test_activations_in_blocks_of_small_floats():
    """max 5.6: scale 1 (exponent 127 in its byte); FP4's codes are sign and magnitude in 0 .5 1 1.5 2 3 4 6."""
    states = torch.tensor([[5.6, -5.0, 2.5, 0.75] + [0.0] * 28 + [0.25] * 8])
    found = codes_of_activations(states, Activations(format="mxfp4"), None, 100, 0)
    assert found.codes[0, :4].tolist() == [7, 8 + 6, 4, 2] and found.bits == 4
    assert found.codes[0, 32:].tolist() == [6] * 8  # ⌊log₂ ¼⌋ − 2 = −4: 4 sixteenths
    assert found.statistics == bytes([127, 123]) and found.stored_bits == 40 * 4 + 2 * 8
    by_token = codes_of_activations(states, Activations(format="fp8_e4m3"), None, 100, 0)
    assert by_token.stored_bits == 40 * 8 + 32 and "group" not in by_token.units
