"""Numbers of small floating-point formats: rounding to them, their bits, and the power of two that a block shares."""

from __future__ import annotations

import functools

import torch

from bitsure.config.number_formats import E4M3, Element

EXPONENT = 0x7F800000  # the bits of a float32 that hold its exponent + 127
MANTISSA_BITS = 23


def nearest(values: torch.Tensor, element: Element) -> torch.Tensor:
    """Return the nearest numbers of a format (float32, ties to even).

    What is too large becomes the largest number, NaN stays NaN, and every zero is +0. Adding 1.5 · 2²³ steps, and subtracting
    them, leaves whole steps; the size of a step follows from a value's exponent bits.
    """
    values = values.clamp(-element.largest, element.largest)
    exponents = (values.view(torch.int32) & EXPONENT).clamp_(min=(element.e_min + 127) << MANTISSA_BITS)
    steps = exponents.add_(((MANTISSA_BITS - element.mantissa_bits) << MANTISSA_BITS) + (1 << 22)).view(torch.float32)
    return (values + steps).sub_(steps)


def power_of_two(exponents: torch.Tensor) -> torch.Tensor:
    """Return 2^k (float32) of integers k from −127 to 127, exactly."""
    return torch.where(exponents == -127, 2.0**-127, ((exponents.int() + 127) << MANTISSA_BITS).view(torch.float32))


def shared_exponents(largest: torch.Tensor, element: Element) -> torch.Tensor:
    """Return the exponent of each MX block's scale: ⌊log₂ m⌋ − e_max, int32, within −127 … 127.

    Args:
        largest: The largest magnitude m of each block, float32, finite; a block of zeros gets the smallest exponent.
        element: The format of the block's numbers.

    Reference: OCP Microscaling Formats v1.0, section 6.3.
    """
    floors = (largest.view(torch.int32) >> MANTISSA_BITS) - 127  # −127 of subnormal numbers, where the bound applies
    return (floors - element.e_max).clamp(-127, 127)


def tensor_scale(largest: torch.Tensor, element: Element) -> torch.Tensor:
    """Return what scales of blocks are multiplied by before they are rounded to FP8, so that they use its range.

    Args:
        largest: The largest magnitude of the tensor, float32, any shape.
        element: The format of its numbers.

    Returns:
        448 · `element.largest` / largest, of the same shape; 1 where that is not finite.

    Reference: compressed-tensors, `generate_gparam`.
    """
    scales = E4M3.largest * element.largest / largest.clamp(min=torch.finfo(torch.float32).tiny)
    return scales.nan_to_num(nan=1.0, posinf=1.0)


def fp8_scales(largest: torch.Tensor, whole: torch.Tensor, element: Element) -> torch.Tensor:
    """Return the scale of each block: a number of FP8 (E4M3) divided by the tensor's scale; of a block of zeros ⅛ of that.

    Args:
        largest: The largest magnitude m of each block, float32.
        whole: `tensor_scale`, which broadcasts to it.
        element: The format of the blocks' numbers.
    """
    scales = nearest(whole * (largest / element.largest), E4M3)
    return torch.where(scales == 0, 0.125, scales) / whole


def encode(values: torch.Tensor, element: Element) -> torch.Tensor:
    """Return the bits of numbers of a format, uint8: a sign and a magnitude, or two's complement for integers."""
    magnitudes = values.abs()
    # Exponent and mantissa lie side by side as in float32; below 2^e_min numbers are whole steps.
    normal = (magnitudes.view(torch.int32) >> (MANTISSA_BITS - element.mantissa_bits)) - (
        (element.e_min + 126) << element.mantissa_bits
    )
    steps = (magnitudes * 2.0 ** (element.mantissa_bits - element.e_min)).int()
    codes = torch.where(magnitudes < 2.0**element.e_min, steps, normal)
    negative, sign = values.signbit(), 1 << (element.bits - 1)
    if element.integers:
        return torch.where(negative, -codes & (2 * sign - 1), codes).to(torch.uint8)
    return (codes + negative * sign).to(torch.uint8)


def decode(codes: torch.Tensor, element: Element) -> torch.Tensor:
    """Return the numbers that bits stand for, float32."""
    return _numbers(element).to(codes.device)[codes.long()]


@functools.cache
def _magnitudes(element: Element) -> torch.Tensor:
    """Return every number from 0 to the largest, in order; a number's place is its magnitude's bits."""
    bits = torch.arange(2 ** (element.bits - 1))
    exponents, mantissas = bits >> element.mantissa_bits, bits & (2**element.mantissa_bits - 1)
    units = torch.where(exponents > 0, mantissas + 2**element.mantissa_bits, mantissas)
    numbers = units * 2.0 ** (element.e_min + (exponents - 1).clamp(min=0) - element.mantissa_bits)
    return numbers[numbers <= element.largest].float()


@functools.cache
def _numbers(element: Element) -> torch.Tensor:
    """Return the number of every code; NaN where a format has none."""
    magnitudes, half = _magnitudes(element), 2 ** (element.bits - 1)
    numbers = torch.full((2 * half,), torch.nan)
    numbers[: len(magnitudes)] = magnitudes
    if element.integers:
        numbers[half + 1 :] = -magnitudes[1:].flip(0)
    else:
        numbers[half : half + len(magnitudes)] = -magnitudes
    return numbers
