from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

from bitsure.compress.entropy import entropy
from tests.builders.codes import CODES


def test_by_hand():
    codes = np.array([[0, 0, 0, 0], [0, 1, 2, 3]], dtype=np.uint8)
    # all together: 0 five times of eight, 1, 2 and 3 once each
    together = -(5 / 8 * math.log2(5 / 8) + 3 * 1 / 8 * math.log2(1 / 8))
    assert entropy(codes, 2).value == pytest.approx(together)
    assert entropy(codes, 2).corrected == pytest.approx(together + 3 / (2 * 8 * math.log(2)))
    rows = entropy(codes, 2, np.arange(2)[:, None])
    assert (rows.value, rows.units) == (pytest.approx((0 + 2) / 2), 2)
    assert rows.corrected == pytest.approx(1 + (0 + 3) / (2 * 8 * math.log(2)))
    columns = entropy(codes, 2, np.arange(4)[None])
    assert columns.value == pytest.approx((0 + 1 + 1 + 1) / 4)


def test_units_weigh_as_many_codes_as_they_have_and_gaps_in_their_numbers_are_no_units():
    codes = np.array([[0, 1, 0, 0, 0, 0]], dtype=np.uint8)
    found = entropy(codes, 1, np.array([[3, 3, 7, 7, 7, 7]]))
    assert (found.value, found.units) == (pytest.approx(2 / 6), 2)


@pytest.mark.parametrize("bits", range(1, 9))
def test_uniform_codes_have_all_their_bits(bits):
    codes = np.tile(np.arange(2**bits, dtype=np.uint8), (3, 2))
    assert entropy(codes, bits).value == pytest.approx(bits)
    assert entropy(codes, bits, np.arange(3)[:, None]).value == pytest.approx(bits)


@given(CODES)
@settings(max_examples=200)
def test_never_more_than_the_bits_and_finer_units_never_have_more(given_codes):
    bits, codes = given_codes
    tensor, rows = entropy(codes, bits), entropy(codes, bits, np.arange(len(codes))[:, None])
    each = entropy(codes, bits, np.arange(codes.size).reshape(codes.shape))
    assert 0 <= each.value <= rows.value + 1e-9 <= tensor.value + 2e-9 <= bits + 3e-9
    assert each.value == 0 and each.units == codes.size
    assert rows.value <= math.log2(codes.shape[1]) + 1e-9  # few codes cannot show more
    assert tensor.value <= tensor.corrected <= bits


def test_the_correction_brings_small_groups_near_the_truth():
    codes = np.random.default_rng(0).integers(0, 16, (2000, 64)).astype(np.uint8)
    found = entropy(codes, 4, np.arange(2000)[:, None])
    assert found.value < 3.85 and found.corrected == pytest.approx(4, abs=0.02)
