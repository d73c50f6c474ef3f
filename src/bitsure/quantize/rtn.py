"""Round to nearest: the baseline of weight quantization, one scale for each group of a row."""

from __future__ import annotations

import torch

from bitsure.quantize.formats import IntegerWeight, fit_grid, group_index, to_codes
from bitsure.quantizers import Integers


def round_to_nearest(weight: torch.Tensor, quant: Integers, shrink: torch.Tensor | None = None) -> IntegerWeight:
    """Quantize a weight (out, in); `shrink` (out, groups) narrows each group's range (1 if None)."""
    weight = weight.detach().float()
    width = weight.shape[1]
    group_of = group_index(width, quant)
    values = in_groups(weight, group_of)  # (out, groups, size)
    whole = values.reshape(1, 1, -1) if quant.group_size == 0 else values
    scales, zeros = fit_grid(whole, quant, 1.0 if shrink is None else shrink)
    codes = to_codes(values, scales[..., None], zeros[..., None], quant.bits).view(len(weight), -1)[:, : len(group_of)]
    return IntegerWeight(quant.bits, codes, scales, zeros, group_of, width=None if len(group_of) == width else width)


def in_groups(weight: torch.Tensor, group_of: torch.Tensor) -> torch.Tensor:
    """A matrix (out, in) cut into its groups, (out, groups, size), the last filled up with zeros."""
    groups, size = int(group_of[-1]) + 1, int((group_of == 0).sum())
    return torch.nn.functional.pad(weight, (0, groups * size - weight.shape[1])).view(len(weight), groups, size)
