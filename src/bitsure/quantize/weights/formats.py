"""Number formats of weights: what a quantized matrix is made of, and the grid that a group's values are rounded to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from bitsure.config.number_formats import ELEMENTS, MX, Numbers
from bitsure.config.quantizers import Rounded
from bitsure.quantize.weights.elements import MANTISSA_BITS, decode, encode, nearest, power_of_two, shared_exponents

TINY = torch.finfo(torch.float32).tiny


class Weight(Protocol):
    """A quantized weight matrix of any format."""

    def dequantize(self) -> torch.Tensor:
        """The matrix, (out, in) float32."""

    @property
    def storage_bits(self) -> float:
        """Bits that codes, scales and zero points take, without the padding of packed words."""


@dataclass(frozen=True)
class IntegerWeight:
    """Integers: W[o, i] ≈ scales[o, g] · (codes[o, i] − zeros[o, g]) · input_scales[i] with g = group_of[i]."""

    bits: int
    codes: torch.Tensor  # (out, stored) int32 in [0, 2**bits); stored ≥ in: the last group may be padded
    scales: torch.Tensor  # (out, groups) floating, or (1, 1): one for the whole tensor
    zeros: torch.Tensor  # as scales; int32 in [0, 2**bits], or floating
    group_of: torch.Tensor  # (stored,) int64
    input_scales: torch.Tensor | None = None  # (in,) float16; what the layer's input is multiplied by before the codes see it
    width: int | None = None  # in, where it is less than stored

    def dequantize(self) -> torch.Tensor:
        weight = self.scales.float()[:, self.group_of] * (self.codes - self.zeros[:, self.group_of])
        return _for_inputs(weight[:, : self.width], self.input_scales)

    @property
    def storage_bits(self) -> float:
        zero_bits = self.zeros.element_size() * 8 if self.zeros.is_floating_point() else self.bits
        bits = self.codes.numel() * self.bits + self.scales.numel() * (self.scales.element_size() * 8 + zero_bits)
        return bits + _bits(self.input_scales)


@dataclass(frozen=True)
class ElementWeight:
    """Numbers of a small format: W[o, i] ≈ scales[o, g] · number(codes[o, i]) · input_scales[i] with g = group_of[i]."""

    format: str
    codes: torch.Tensor  # (out, stored) uint8, the numbers' bits
    scales: torch.Tensor  # (out, groups) float32, or (1, 1); MX: uint8, the exponent of a power of two + 127
    group_of: torch.Tensor  # (stored,) int64
    input_scales: torch.Tensor | None = None  # as in IntegerWeight
    width: int | None = None

    @property
    def bits(self) -> int:
        return ELEMENTS[self.format].bits

    def dequantize(self) -> torch.Tensor:
        scales = power_of_two(self.scales.int() - 127) if self.format in MX else self.scales
        weight = scales[:, self.group_of] * decode(self.codes, ELEMENTS[self.format])
        return _for_inputs(weight[:, : self.width], self.input_scales)

    @property
    def storage_bits(self) -> float:
        return self.codes.numel() * self.bits + _bits(self.scales) + _bits(self.input_scales)


@dataclass(frozen=True)
class CodebookWeight:
    """Entries of a codebook: W[i] ≈ codebook[codes[i]] · absmax[i // block_size], with i counting through all rows.

    The blockwise format of QLoRA (Dettmers et al. 2023, equations 4 and 5): blocks run on from one row into the next.
    """

    bits: int
    codes: torch.Tensor  # (out, in) uint8 in [0, 2**bits)
    codebook: torch.Tensor  # (2**bits,) float32; part of the format, so it is not counted as storage
    absmax: torch.Tensor | CodebookWeight  # (blocks,) float32, or itself quantized: the double quantization of QLoRA
    block_size: int
    offset: float = 0.0  # what a quantized absmax was less when it was quantized

    def dequantize(self) -> torch.Tensor:
        absmax = self.absmax if isinstance(self.absmax, torch.Tensor) else self.absmax.dequantize() + self.offset
        scales = absmax.repeat_interleave(self.block_size)[: self.codes.numel()].view_as(self.codes)
        return self.codebook[self.codes.long()] * scales

    @property
    def storage_bits(self) -> float:
        statistics = self.absmax.numel() * 32 if isinstance(self.absmax, torch.Tensor) else self.absmax.storage_bits + 32
        return self.codes.numel() * self.bits + statistics


@dataclass(frozen=True)
class DenseWeight:
    """A matrix of floating-point numbers, (out, in): a cast, or a weight with noise on it."""

    values: torch.Tensor

    def dequantize(self) -> torch.Tensor:
        return self.values.float()

    @property
    def storage_bits(self) -> float:
        return self.values.numel() * self.values.element_size() * 8


def _for_inputs(weight: torch.Tensor, input_scales: torch.Tensor | None) -> torch.Tensor:
    return weight if input_scales is None else weight * input_scales.float()


def _bits(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size() * 8


def group_index(width: int, quant: Rounded) -> torch.Tensor:
    """Which group each stored column of a row of `width` weights belongs to, (stored,) int64.

    Where the group size does not divide the width, quant.remainder says what happens: `shorten` leaves a shorter last
    group, `pad` fills it up with zeros that are stored too, `row` makes the whole row one group.
    """
    size = quant.group_size if quant.group_size > 0 else width
    stored = width
    if width % size and quant.remainder == "row":
        size = width
    elif width % size and quant.remainder == "pad":
        stored = -(-width // size) * size
    return torch.arange(stored) // size


def fit_grid(
    values: torch.Tensor, numbers: Numbers, shrink: torch.Tensor | float = 1.0, shrink_high: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points (…) of groups of values (…, size).

    shrink: (…) in (0, 1] narrows the range that integers cover, its upper end by shrink_high where given. Symmetric
    integers: zero point 2^(bits−1), scale max|w| / (2^(bits−1) − ½), so that both ends of the range are reached to half a
    step. Asymmetric: the range is [min(w, 0), max(w, 0)], the zero point the code of 0. Scales of integers are float16, as in
    packed checkpoints. MX: the power of two 2^(⌊log₂ max|w|⌋ − e_max). FP8: max|w| / its largest number. Zero points are int32.
    """
    largest = values.abs().amax(-1)
    if numbers.format != "int":
        element = ELEMENTS[numbers.format]
        in_mx = numbers.format in MX
        scales = power_of_two(shared_exponents(largest, element)) if in_mx else (largest / element.largest).clamp(TINY)
        return scales, torch.zeros_like(scales, dtype=torch.int32)
    levels = 2**numbers.bits - 1
    if numbers.symmetric:
        scales = _half(2 * largest * shrink / levels)
        return scales, torch.full_like(scales, 2 ** (numbers.bits - 1), dtype=torch.int32)
    shrink_high = shrink if shrink_high is None else shrink_high
    low, high = values.amin(-1).clamp(max=0) * shrink, values.amax(-1).clamp(min=0) * shrink_high
    scales = _half((high - low) / levels)
    return scales, (-low / scales.float()).round().clamp(0, levels).to(torch.int32)


def to_units(values: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    """The format's numbers nearest to values, float32: what scales are multiplied by. Scales and zeros must broadcast."""
    if numbers.format != "int":
        return nearest(values / scales, ELEMENTS[numbers.format]).copysign_(values)  # zeros have a sign in their bits
    zeros = zeros.float()
    return (values / scales.float()).round_().clamp_(-zeros, 2**numbers.bits - 1 - zeros)


def weight_of(
    units: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group_of: torch.Tensor, width: int, numbers: Numbers
) -> IntegerWeight | ElementWeight:
    """What units (out, stored) with their scales and zero points (out, groups), or (1, 1), make."""
    width = None if len(group_of) == width else width
    if numbers.format == "int":
        codes = (units + (zeros[:, group_of] if zeros.shape[1] > 1 else zeros)).to(torch.int32)
        return IntegerWeight(numbers.bits, codes, scales, zeros, group_of, width=width)
    if numbers.format in MX:
        scales = (scales.view(torch.int32) >> MANTISSA_BITS).to(torch.uint8)
    return ElementWeight(numbers.format, encode(units, ELEMENTS[numbers.format]), scales, group_of, width=width)


def _half(scales: torch.Tensor) -> torch.Tensor:
    """Scales as float16, never zero: a group of zeros has codes that say zero at any scale."""
    return scales.half().clamp(min=2**-24)  # the smallest above zero
