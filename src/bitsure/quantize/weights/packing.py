"""Codes of few bits packed into 32-bit words, as GPTQ checkpoints hold them."""

from __future__ import annotations

import torch


def pack(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack integers as a little-endian bit stream down each column; values of 3, 5, 6 or 7 bits straddle words.

    Args:
        values: Integers in [0, 2**bits), shape (n, columns).
        bits: Bits of an integer, 2 to 8.

    Returns:
        Words, (⌈n·bits/32⌉, columns) int32.
    """
    n, columns = values.shape
    if 32 % bits == 0:  # No value straddles words.
        whole = torch.nn.functional.pad(values.to(torch.int32), (0, 0, 0, -n % (32 // bits)))
        shifts = torch.arange(0, 32, bits, dtype=torch.int32)[:, None]
        shifted: torch.Tensor = whole.reshape(-1, 32 // bits, columns) << shifts
        return shifted.sum(1, dtype=torch.int32)
    word, shift = _positions(n, bits)
    words = torch.zeros(-(-n * bits // 32) + 1, columns, dtype=torch.int64)
    wide = values.to(torch.int64) << shift[:, None]
    words.index_add_(0, word, wide & 0xFFFFFFFF)  # Bits do not overlap, so that adding sets them.
    words.index_add_(0, word + 1, wide >> 32)
    words = words[:-1]
    signed: torch.Tensor = torch.where(words >= 2**31, words - 2**32, words)
    return signed.to(torch.int32)


def unpack(words: torch.Tensor, bits: int, n: int) -> torch.Tensor:
    """Return the first `n` integers of each column of a packed matrix, (n, columns) int32."""
    if 32 % bits == 0:
        shifts = torch.arange(0, 32, bits, dtype=torch.int32)[:, None]
        whole: torch.Tensor = (words[:, None] >> shifts) & (2**bits - 1)
        return whole.reshape(-1, words.shape[1])[:n]
    word, shift = _positions(n, bits)
    stream = torch.cat([words, words.new_zeros(1, words.shape[1])]).to(torch.int64) & 0xFFFFFFFF
    wide = stream[word] | (stream[word + 1] << 32)
    values: torch.Tensor = (wide >> shift[:, None]) & (2**bits - 1)
    return values.to(torch.int32)


def _positions(n: int, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    offset = torch.arange(n) * bits
    return offset // 32, offset % 32
