"""Fake quantization: values become the nearest numbers of a format times their scale, and stay floating-point tensors."""

from __future__ import annotations

from typing import Any

import torch

from bitsure.config.number_formats import ELEMENTS, FP8_SCALED, MX, Numbers
from bitsure.quantize.weights.small_floats import fp8_scales, nearest, power_of_two, shared_exponents, tensor_scale

TINY = torch.finfo(torch.float32).tiny  # the smallest scale, that of a group of zeros
HUGE = torch.finfo(torch.float32).max
CACHED = 2**18  # values that a CPU's thread rounds at once: intermediate results stay in its cache

Grid = tuple[torch.Tensor, torch.Tensor, torch.Tensor | int]


def fake_quantize(values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None = None) -> torch.Tensor:
    """Round values to a number format.

    Groups lie along the last dimension; the last one is shorter if they do not divide it. Where scales are numbers of FP8, each
    row has one float32 beside them, as a weight has for the whole tensor: a token's values do not depend on others. The
    computation is in float32, in which the results are exactly numbers of the format times their scale. In half precision
    they are rounded once more: numbers of MX formats within the type's range stay exact, a product of an integer or an FP8
    number with its scale is off by up to 2⁻⁹ of itself in bfloat16, 2⁻¹² in float16; `off_grid` in quantization.json is the
    largest such error.

    Args:
        values: Shape (…, width), any floating type.
        numbers: The number format.
        static_range: (low, high), shape (2,), the range of a group size of 0.

    Returns:
        The rounded values, of the same type and shape. A group with NaN or an infinity becomes NaN.
    """
    rows = values.detach().reshape(-1, values.shape[-1])
    rounded = torch.empty_like(rows)
    at_once = max(1, torch.get_num_threads() * CACHED // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
    for part, into in zip(torch.split(rows, at_once), torch.split(rounded, at_once), strict=True):
        into.copy_(_rounded(part.float(), numbers, static_range))
    return straight_through(values, rounded.view(values.shape))


def straight_through(values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """Return `rounded` with the gradient of `values`, as if nothing was rounded (Bengio et al. 2013)."""
    return values + (rounded - values).detach() if values.requires_grad else rounded


def range_of(values: torch.Tensor) -> torch.Tensor:
    """Return the lowest and the highest of all values, (2,) float32."""
    return torch.stack(torch.aminmax(values.float()))


def on_grid(
    values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the parts of rounded rows: numbers of the format, their groups' scales and zero points, all float32.

    Args:
        values: Shape (n, width).
        numbers: The number format.
        static_range: As in `fake_quantize`.

    Returns:
        Numbers (n, width), integers less their zero point; scales and zero points (n, groups), (1, 1) of a static range.
    """
    width = values.shape[1]
    units, scales, zeros = _grid(_in_groups(values.float(), numbers), numbers, static_range)
    zeros = torch.as_tensor(zeros, device=scales.device).expand_as(scales)
    shape = (1, 1) if scales.numel() == 1 else (len(values), -1)
    return units.reshape(len(values), -1)[:, :width], scales.reshape(shape), zeros.reshape(shape)


def widest(bits: int) -> float:
    """Return the largest end of a range of integers whose outermost code, 2^bits / (2^bits − 1) of it, is still finite."""
    return HUGE * (1 - 2.0**-bits) * (1 - 2.0**-20)


def _rounded(values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None) -> torch.Tensor:
    """Round rows (n, width) in float32, in place."""
    width, values = values.shape[1], _in_groups(values, numbers)
    units, scales, _ = _grid(values, numbers, static_range)
    rounded = units.mul_(scales)
    if static_range is not None:  # It would clip what is not finite; without it the scale is NaN already.
        rounded.add_(values - values)
    return rounded.flatten(1)[:, :width]


def _in_groups(values: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    """Return (n, width) as (n, groups, size), the last group filled up with zeros; unchanged if a row is one group."""
    width, size = values.shape[1], numbers.group_size
    if size is None or not 0 < size < width:
        return values
    values = torch.nn.functional.pad(values, (0, -width % size)) if width % size else values
    return values.view(len(values), -1, size)


def _grid(values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None) -> Grid:
    """Return the numbers nearest to values (…, size) over their scales, and scales and zero points (…, 1)."""
    return (_integers if numbers.format == "int" else _elements)(values, numbers, static_range)


def _integers(values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None) -> Grid:
    """Return the grid of integers; scales are those of `fit_grid`, but in float32."""
    levels = numbers.levels
    if static_range is None:  # torch.aminmax is several times slower.
        low, high = values.amin(-1, True), values.amax(-1, True)
    else:
        low, high = static_range.to(values.device)
    finite = (high - high) + (low - low)  # 0, or NaN
    furthest = widest(levels.bit_length())
    low, high = low.clamp(-furthest, furthest), high.clamp(-furthest, furthest)
    if numbers.symmetric:
        scales = torch.maximum(high, -low) / (levels / 2)
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scales = (high / 2 - low / 2) / (levels / 2)  # Halves first: the sum could overflow.
    scales = scales.clamp(TINY) + finite
    zeros: Any = (levels + 1) // 2 if numbers.symmetric else (-low / scales).round_().clamp_(0, levels)
    return (values / scales).round_().clamp_(-zeros, levels - zeros), scales, zeros


def _elements(values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None) -> Grid:
    """Return the grid of a small floating-point format."""
    element = ELEMENTS[numbers.format]
    largest = values.abs().amax(-1, keepdim=True) if static_range is None else static_range.abs().max().to(values.device)
    finite = largest - largest  # 0, or NaN
    if numbers.format in MX:
        exponents = shared_exponents(largest, element)
        return nearest(values * power_of_two(-exponents), element), power_of_two(exponents) + finite, 0
    if numbers.format in FP8_SCALED:
        row = largest.amax(tuple(range(1, largest.ndim)), keepdim=True)
        scales = fp8_scales(largest, tensor_scale(row, element), element) + finite
    else:
        scales = (largest / element.largest).clamp(TINY) + finite
    return nearest(values / scales, element), scales, 0
