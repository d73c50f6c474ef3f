"""The grid that a group of weights is rounded to: its groups, scales and zero points, and the numbers nearest to weights."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from bitsure.config.number_formats import E4M3, ELEMENTS, FP8_SCALED, MX, Numbers
from bitsure.quantize.weights.element import ElementWeight
from bitsure.quantize.weights.integer import IntegerWeight
from bitsure.quantize.weights.small_floats import (
    MANTISSA_BITS,
    encode,
    fp8_scales,
    nearest,
    power_of_two,
    shared_exponents,
    tensor_scale,
)

TINY = torch.finfo(torch.float32).tiny


class Grouping(Protocol):
    """The settings that say how weights are grouped."""

    group_size: int | None
    """Weights that share a scale; −1: a row; 0: a tensor."""
    remainder: str
    """`shorten`, `pad` or `row`: what happens to a width that the group size does not divide."""


def group_index(width: int, quant: Grouping) -> torch.Tensor:
    """Return the group of each stored column of a row of `width` weights, (stored,) int64.

    If the group size does not divide the width, `quant.remainder` decides: `shorten` leaves a shorter last group, `pad` fills
    it up with zeros that are stored too, `row` makes the whole row one group.
    """
    size = quant.group_size if quant.group_size is not None and quant.group_size > 0 else width
    stored = width
    if width % size and quant.remainder == "row":
        size = width
    elif width % size and quant.remainder == "pad":
        stored = -(-width // size) * size
    return torch.arange(stored) // size


def whole_scale(weight: torch.Tensor, numbers: Numbers) -> torch.Tensor | None:
    """Return the one scale of a whole weight beside those of its groups, shape (); None in formats that have none."""
    return tensor_scale(weight.abs().amax(), ELEMENTS[numbers.format]) if numbers.format in FP8_SCALED else None


def fit_grid(
    values: torch.Tensor,
    numbers: Numbers,
    shrink: torch.Tensor | float = 1.0,
    shrink_high: torch.Tensor | None = None,
    *,
    whole: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scales and zero points of groups of values.

    Args:
        values: Groups of weights, shape (…, size).
        numbers: The number format.
        shrink: What the range that integers cover is multiplied by, shape (…), in (0, 1].
        shrink_high: The same for the range's upper end, if it differs.
        whole: `whole_scale` of the weight that the groups are of.

    Returns:
        Scales and int32 zero points, shape (…). Symmetric integers: zero point 2^(bits−1), scale max|w| / (2^(bits−1) − ½), so
        that both ends of the range are reached to half a step. Asymmetric: the range is [min(w, 0), max(w, 0)], the zero point
        the code of 0. Scales of integers are float16, as in packed checkpoints. MX: the power of two
        2^(⌊log₂ max|w|⌋ − e_max), float32. FP8: max|w| / the largest number, float32; where `whole` is given as `fp8_scales`.
    """
    largest = values.abs().amax(-1)
    if numbers.format != "int":
        element = ELEMENTS[numbers.format]
        if whole is not None:
            scales = fp8_scales(largest, whole, element)
        elif numbers.format in MX:
            scales = power_of_two(shared_exponents(largest, element))
        else:
            scales = _quotient(largest, element.largest).clamp(TINY)
        return scales, torch.zeros_like(scales, dtype=torch.int32)
    levels = numbers.levels
    if numbers.symmetric:
        scales = _half(_quotient(2 * largest * shrink, levels))
        return scales, torch.full_like(scales, (levels + 1) // 2, dtype=torch.int32)
    low = values.amin(-1).clamp(max=0) * shrink
    high = values.amax(-1).clamp(min=0) * (shrink if shrink_high is None else shrink_high)
    scales = _half(_quotient(high - low, levels))
    return scales, (-low / scales.float()).round().clamp(0, levels).to(torch.int32)


def to_units(values: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    """Return the format's numbers nearest to values / scales, float32; scales and zeros must broadcast to values."""
    if numbers.format != "int":
        return nearest(values / scales, ELEMENTS[numbers.format]).copysign_(values)  # The sign of a zero is stored, too.
    zeros = zeros.float()
    return (values / scales.float()).round_().clamp_(-zeros, numbers.levels - zeros)


def weight_from_units(
    units: torch.Tensor,
    grid: tuple[torch.Tensor, torch.Tensor],
    group_of: torch.Tensor,
    width: int,
    numbers: Numbers,
    whole: torch.Tensor | None = None,
) -> IntegerWeight | ElementWeight:
    """Return the weight of rounded values.

    Args:
        units: What `to_units` returns, shape (out, stored).
        grid: Scales and zero points, shape (out, groups), or (1, 1) for one scale a tensor.
        group_of: The group of each stored column, shape (stored,).
        width: The number of weights in a row.
        numbers: The number format.
        whole: `whole_scale` of the weight.
    """
    group_of = group_of.to(units.device, non_blocking=True)
    scales, zeros = grid
    grouping: Any = {"group_of": group_of, "width": None if len(group_of) == width else width}
    if numbers.format == "int":
        codes = (units + (zeros[:, group_of] if zeros.shape[1] > 1 else zeros)).to(torch.int32)
        return IntegerWeight(bits=numbers.levels.bit_length(), codes=codes, scales=scales, zeros=zeros, **grouping)
    if numbers.format in MX:
        scales = (scales.view(torch.int32) >> MANTISSA_BITS).to(torch.uint8)
    if whole is not None:
        scales = encode(nearest(scales * whole, E4M3), E4M3)
    codes = encode(units, ELEMENTS[numbers.format])
    return ElementWeight(format=numbers.format, codes=codes, scales=scales, tensor_scale=whole, **grouping)


def _quotient(values: torch.Tensor, number: float) -> torch.Tensor:
    """Return values / number, rounded once on every device: a GPU multiplies by the reciprocal of a plain number."""
    return values / values.new_full((), number)


def _half(scales: torch.Tensor) -> torch.Tensor:
    """Return scales as float16, at least the smallest number above zero: a group of zeros is zero at any scale."""
    return scales.half().clamp(min=2**-24)
