"""Codes of few bits packed into 32-bit words, as checkpoints hold them."""

from __future__ import annotations

import torch


def pack(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Integers (n, columns) in [0, 2**bits) as a little-endian bit stream down each column: (⌈n·bits/32⌉, columns) int32.

    The layout of GPTQ checkpoints, for 3 bits too, where values straddle words.
    """
    n, columns = values.shape
    if 32 % bits == 0:  # nothing straddles words
        whole = torch.nn.functional.pad(values.to(torch.int32), (0, 0, 0, -n % (32 // bits)))
        shifts = torch.arange(0, 32, bits, dtype=torch.int32)[:, None]
        return (whole.reshape(-1, 32 // bits, columns) << shifts).sum(1, dtype=torch.int32)
    word, shift = _positions(n, bits)
    words = torch.zeros(-(-n * bits // 32) + 1, columns, dtype=torch.int64)
    wide = values.to(torch.int64) << shift[:, None]
    words.index_add_(0, word, wide & 0xFFFFFFFF)  # bits do not overlap, so adding is setting
    words.index_add_(0, word + 1, wide >> 32)
    words = words[:-1]
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpack(words: torch.Tensor, bits: int, n: int) -> torch.Tensor:
    """The first `n` integers of each column of a packed matrix: (n, columns) int32."""
    if 32 % bits == 0:
        shifts = torch.arange(0, 32, bits, dtype=torch.int32)[:, None]
        return ((words[:, None] >> shifts) & (2**bits - 1)).reshape(-1, words.shape[1])[:n]
    word, shift = _positions(n, bits)
    stream = torch.cat([words, words.new_zeros(1, words.shape[1])]).to(torch.int64) & 0xFFFFFFFF
    wide = stream[word] | (stream[word + 1] << 32)
    return ((wide >> shift[:, None]) & (2**bits - 1)).to(torch.int32)


def _positions(n: int, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    offset = torch.arange(n) * bits
    return offset // 32, offset % 32
