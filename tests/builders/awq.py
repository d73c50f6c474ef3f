"""Words as AutoAWQ packs them."""

from __future__ import annotations

import torch


def awq_pack(codes: torch.Tensor) -> torch.Tensor:
    """AutoAWQ's own loop (WQLinear_GEMM.from_linear), codes (n, columns)."""
    words = torch.zeros(len(codes), codes.shape[1] // 8, dtype=torch.int32)
    for column in range(words.shape[1]):
        for i, place in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
            words[:, column] |= codes[:, column * 8 + place].to(torch.int32) << (i * 4)
    return words
