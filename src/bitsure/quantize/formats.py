"""Number formats of weights: what a quantized matrix is made of, and the grid that a group's values are rounded to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from bitsure.quantizers import Integers


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
        weight = weight[:, : self.width]
        return weight if self.input_scales is None else weight * self.input_scales.float()

    @property
    def storage_bits(self) -> float:
        zero_bits = self.zeros.element_size() * 8 if self.zeros.is_floating_point() else self.bits
        bits = self.codes.numel() * self.bits + self.scales.numel() * (self.scales.element_size() * 8 + zero_bits)
        return bits + (0 if self.input_scales is None else self.input_scales.numel() * self.input_scales.element_size() * 8)


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


def group_index(width: int, quant: Integers) -> torch.Tensor:
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


def fit_grid(values: torch.Tensor, quant: Integers, shrink: torch.Tensor | float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points (…) of groups of values (…, size); `shrink` (…) in (0, 1] narrows the range that is covered.

    Symmetric: zero point 2^(bits−1), scale max|w| / (2^(bits−1) − ½), so that both ends of the range are reached to half
    a step. Asymmetric: the range is [min(w, 0), max(w, 0)], the zero point the code of 0. Scales are float16, as in
    packed checkpoints.
    """
    levels = 2**quant.bits - 1
    if quant.symmetric:
        scales = _half(2 * values.abs().amax(-1) * shrink / levels)
        return scales, torch.full_like(scales, 2 ** (quant.bits - 1), dtype=torch.int32)
    low, high = values.amin(-1).clamp(max=0) * shrink, values.amax(-1).clamp(min=0) * shrink
    scales = _half((high - low) / levels)
    return scales, (-low / scales.float()).round().clamp(0, levels).to(torch.int32)


def to_codes(values: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest codes of values, int32; scales and zeros must broadcast to them."""
    return ((values / scales.float()).round() + zeros).clamp(0, 2**bits - 1).to(torch.int32)


def _half(scales: torch.Tensor) -> torch.Tensor:
    """Scales as float16, never zero: a group of zeros has codes that say zero at any scale."""
    return scales.half().clamp(min=2**-24)  # the smallest above zero
