from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitsure.quantize.weights.packing import pack, unpack


@given(st.integers(2, 8), st.integers(1, 100), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_unpacking_gives_back_what_was_packed(bits, n, columns, seed):
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, 2**bits, (n, columns), dtype=np.int32))
    words = pack(values, bits)
    assert words.dtype == torch.int32 and words.shape == (-(-n * bits // 32), columns)
    assert torch.equal(unpack(words, bits, n), values)


def test_four_bits_are_nibbles_from_the_lowest():
    assert pack(torch.arange(8, dtype=torch.int32)[:, None], 4).tolist() == [[0x76543210]]


def test_three_bits_straddle_words():
    values = torch.full((32, 1), 0, dtype=torch.int32)
    values[10] = 0b101  # its lower two bits end the first word, its upper one begins the second
    words = pack(values, 3).flatten().tolist()
    assert words == [0b01 << 30, 0b1, 0]
