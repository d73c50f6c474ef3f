"""Round to nearest: the baseline of weight quantization, one scale for each group of a row."""

from __future__ import annotations

import torch

from bitsure.config import Rtn
from bitsure.quantize.formats import IntegerWeight


def round_to_nearest(weight: torch.Tensor, quant: Rtn) -> IntegerWeight:
    """Quantize a weight (out, in). A last group that is shorter than group_size keeps a scale of its own.

    Symmetric: zero point 2^(bits−1), scale max|w| / (2^(bits−1) − ½), so that both ends of the range are reached to half
    a step. Asymmetric: the range is [min(w, 0), max(w, 0)], the zero point the code of 0. Scales are float16, as in
    packed checkpoints.
    """
    weight = weight.detach().float().cpu()
    rows, columns = weight.shape
    size = columns if quant.group_size == -1 else quant.group_size
    group_of = torch.arange(columns) // size
    groups = int(group_of[-1]) + 1
    padded = torch.nn.functional.pad(weight, (0, groups * size - columns)).view(rows, groups, size)
    levels = 2**quant.bits - 1
    if quant.symmetric:
        span = 2 * padded.abs().amax(-1)
        zeros = torch.full((rows, groups), 2 ** (quant.bits - 1), dtype=torch.int32)
        scales = _half(span / levels)
    else:
        low, high = padded.amin(-1).clamp(max=0), padded.amax(-1).clamp(min=0)
        scales = _half((high - low) / levels)
        zeros = (-low / scales.float()).round().clamp(0, levels).to(torch.int32)
    codes = (weight / scales.float()[:, group_of]).round().to(torch.int32) + zeros[:, group_of]
    return IntegerWeight(quant.bits, codes.clamp(0, levels), scales, zeros, group_of)


def _half(scales: torch.Tensor) -> torch.Tensor:
    """Scales as float16, never zero: a group of zeros has codes that say zero at any scale."""
    return scales.half().clamp(min=2**-24)  # the smallest above zero
