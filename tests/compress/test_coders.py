from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

from bitsure.base.errors import UserError
from bitsure.compress import coders
from bitsure.compress.entropy import entropy
from tests.builders.codes import CODES


@given(CODES)
@settings(max_examples=200)
def test_the_range_coder_gives_back_the_codes_and_is_no_smaller_than_their_entropy(given_codes):
    bits, codes = given_codes
    table = coders.frequencies(codes.ravel(), bits)
    words = coders.range_encode(codes.ravel(), table)
    assert coders.range_decode(words, table, codes.size).tolist() == codes.ravel().tolist()
    assert words.size * 32 >= entropy(codes, bits).value * codes.size - 1e-9
    assert coders.range_coder(codes.ravel(), bits).bits == words.size * 32 + 2**bits * 16  # with the table


@given(CODES)
@settings(max_examples=50)
def test_every_coder_takes_any_codes(given_codes):
    bits, codes = given_codes
    sizes = coders.sizes(codes, bits)
    assert set(sizes) == set(coders.NAMES) and all(one.bits > 0 and one.seconds > 0 for one in sizes.values())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_independent_codes_come_near_their_entropy_and_not_below(bits):
    rng = np.random.default_rng(0)
    normal = rng.normal(2 ** (bits - 1), 2**bits / 8, (500, 512))
    codes = normal.round().clip(0, 2**bits - 1).astype(np.uint8)
    least = entropy(codes, bits).value * codes.size
    sizes = coders.sizes(codes, bits)
    assert least <= sizes[coders.RANGE_CODER].bits <= least * 1.001 + 2**bits * 16
    assert all(least * 0.999 <= one.bits <= 8.1 * codes.size for one in sizes.values())


def test_zstd_finds_what_frequencies_do_not_tell():
    """Every code as often as any other, but in order: nothing for the range coder, much for zstd."""
    codes = np.tile(np.arange(16, dtype=np.uint8), (64, 64))
    sizes = coders.sizes(codes, 4)
    assert sizes[coders.ZSTD_BYTES].bits < 0.1 * codes.size and sizes[coders.RANGE_CODER].bits >= 4 * codes.size


def test_frequencies_keep_the_rarest_code():
    codes = np.repeat(np.array([0, 3], dtype=np.uint8), [10**6, 1])
    assert coders.frequencies(codes, 2).tolist() == [65535, 0, 0, 1]


def test_the_packed_words_are_those_of_checkpoints():
    codes = np.array([[1, 2, 3, 4, 5, 6, 7, 8], [0] * 7 + [15]], dtype=np.uint8)  # eight codes of 4 bits are a word
    assert coders.packed_words(codes, 4) == (0x87654321).to_bytes(4, "little") + (0xF0000000).to_bytes(4, "little")


def test_codes_that_do_not_come_back_are_an_error(monkeypatch):
    monkeypatch.setattr(coders, "range_decode", lambda words, table, n: np.zeros(n))
    with pytest.raises(UserError, match="range coder did not give back the codes"):
        coders.range_coder(np.array([1, 0, 1], dtype=np.uint8), 1)


def test_a_byte_a_code_is_eight_bits_before_coding():
    random = np.random.default_rng(1).integers(0, 256, 100_000).astype(np.uint8)
    assert math.isclose(coders.zstd(random.tobytes()).bits / random.size, 8, rel_tol=0.01)
