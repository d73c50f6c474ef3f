from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bitsure.compress.codes import draw_rows, of_activations, of_weight
from bitsure.quantize.formats import CodebookWeight, DenseWeight, IntegerWeight

INTEGERS = IntegerWeight(
    bits=4,
    codes=torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=torch.int32),
    scales=torch.tensor([[1.0, 2.0], [3.0, 4.0]]).half(),
    zeros=torch.full((2, 2), 8, dtype=torch.int32),
    group_of=torch.tensor([0, 0, 1, 1]),
)


def test_integers_with_their_channels_groups_and_what_is_beside():
    found = of_weight(INTEGERS, 100, 0)
    assert found.codes.tolist() == INTEGERS.codes.tolist() and found.codes.dtype == np.uint8
    assert found.units["channel"].tolist() == [[0], [1]]
    assert found.units["group"].tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert found.beside == INTEGERS.scales.numpy().tobytes() + INTEGERS.zeros.numpy().astype(np.int16).tobytes()
    assert (found.stored_bits, found.beside_bits, found.weights) == (8 * 4 + 4 * (16 + 4), 4 * (16 + 4), 8)


def test_act_order_and_one_scale_a_tensor():
    shuffled = dataclasses.replace(INTEGERS, group_of=torch.tensor([1, 0, 1, 0]))
    assert of_weight(shuffled, 100, 0).units["group"].tolist() == [[1, 0, 1, 0], [3, 2, 3, 2]]
    single = dataclasses.replace(
        INTEGERS, scales=torch.ones(1, 1).half(), zeros=torch.ones(1, 1).int(), group_of=torch.zeros(4).long()
    )
    assert of_weight(single, 100, 0).units["group"].tolist() == [[0]]


def test_padding_is_stored_but_is_no_weight():
    padded = dataclasses.replace(INTEGERS, width=3)
    assert of_weight(padded, 100, 0).weights == 6 and of_weight(padded, 100, 0).codes.size == 8


def test_rows_of_a_large_weight_are_drawn_by_the_seed_and_keep_their_groups():
    large = dataclasses.replace(
        INTEGERS,
        codes=torch.arange(400, dtype=torch.int32).view(100, 4) % 16,
        scales=torch.ones(100, 2).half(),
        zeros=torch.zeros(100, 2).int(),
    )
    found = of_weight(large, 40, 1)
    rows = draw_rows(100, 4, 40, 1)
    assert found.codes.tolist() == large.codes.numpy()[rows].tolist() and found.share == 0.1
    assert found.units["group"].max() == 19 and len(found.beside) == 100 * 2 * (2 + 2)  # of the whole tensor
    assert found.beside_bits == pytest.approx(200 * (16 + 4))
    assert draw_rows(100, 4, 40, 2).tolist() != rows.tolist() and (np.diff(rows) > 0).all()
    assert draw_rows(100, 4, 1, 0).size == 1 and draw_rows(100, 4, 10**6, 0).size == 100


def test_codebooks_have_blocks_that_run_on_from_row_to_row():
    blocks = CodebookWeight(4, torch.arange(12, dtype=torch.uint8).view(2, 6), torch.linspace(-1, 1, 16), torch.ones(3), 4)
    found = of_weight(blocks, 100, 0)
    assert found.units["group"].tolist() == [[0, 0, 0, 0, 1, 1], [1, 1, 2, 2, 2, 2]]
    assert (found.stored_bits, found.beside) == (12 * 4 + 3 * 32, torch.ones(3).numpy().tobytes())
    nested = CodebookWeight(8, torch.tensor([1, 2, 3], dtype=torch.uint8), torch.linspace(-1, 1, 256), torch.ones(1), 4)
    double = of_weight(dataclasses.replace(blocks, absmax=nested, offset=0.5), 100, 0)
    assert double.beside == b"\1\2\3" + np.float32([1.0, 0.5]).tobytes()
    assert double.beside_bits == len(double.beside) * 8


def test_dense_matrices_have_no_codes():
    assert of_weight(DenseWeight(torch.ones(2, 2).bfloat16()), 100, 0) is None


def test_activations_as_int8_with_one_scale_a_token_by_hand():
    states = torch.tensor([[127.0, -127.0, 1.4, 0.0], [0.0, 0.0, 0.0, 0.0], [2.54, -1.27, 0.0, 0.02]])
    found = of_activations(states, 100, 0)
    assert found.codes.tolist() == [[255, 1, 129, 128], [128] * 4, [255, 64, 128, 129]]
    assert found.units["token"].tolist() == [[0], [1], [2]] and found.units["channel"].tolist() == [[0, 1, 2, 3]]
    assert found.stored_bits == 12 * 8 + 3 * 16 and found.beside_bits == 3 * 16
