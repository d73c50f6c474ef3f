"""Fake quantization: values become the numbers of a format that are nearest to them, and stay floating-point tensors."""

from __future__ import annotations

import torch

from bitsure.config.number_formats import ELEMENTS, MX, Numbers
from bitsure.quantize.weights.elements import nearest, power_of_two, shared_exponents

TINY = torch.finfo(torch.float32).tiny  # the smallest scale: that of a group of zeros
HUGE = torch.finfo(torch.float32).max
CACHED = 2**18  # values rounded at once by a CPU's thread, so that what is made in between stays in its cache


def fake_quantize(values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None = None) -> torch.Tensor:
    """Values (…, width) of any floating type as a format rounds them, in the same type and shape.

    Groups lie along the last dimension, the last one shorter where they do not divide it; static_range: (low, high), the range
    of a group size of 0. Computed in float32, in which the results are exactly numbers of the format times their scale. In half
    precision they are the type's nearest to those: numbers of MX formats within its range are its own, a product of an integer
    or an FP8 number with its scale is off by up to 2⁻⁹ of itself in bfloat16, 2⁻¹² in float16 (quantization.json's `off_grid`
    records how far that goes). A group with NaN or an infinity becomes NaN.
    """
    rows = values.detach().reshape(-1, values.shape[-1])
    found = torch.empty_like(rows)
    at_once = max(1, torch.get_num_threads() * CACHED // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
    for some, into in zip(rows.split(at_once), found.split(at_once), strict=True):
        into.copy_(_rounded(some.float(), numbers, static_range))
    return straight_through(values, found.view(values.shape))


def straight_through(values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """`rounded`, through which gradients go to `values` as if nothing was rounded (Bengio et al. 2013)."""
    return values + (rounded - values).detach() if values.requires_grad else rounded


def range_of(values: torch.Tensor) -> torch.Tensor:
    """The lowest and the highest of all values, (2,) float32."""
    return torch.stack(torch.aminmax(values.float()))


def on_grid(
    values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What rows (n, width) are rounded to: numbers of the format, their groups' scales and zero points, all float32.

    (n, width) numbers, integers less their zero point; (n, groups) scales and zero points, (1, 1) with a static range.
    """
    width = values.shape[1]
    units, scales, zeros = _grid(_in_groups(values.float(), numbers), numbers, static_range)
    zeros = torch.as_tensor(zeros, device=scales.device).expand_as(scales)
    shape = (1, 1) if scales.numel() == 1 else (len(values), -1)
    return units.reshape(len(values), -1)[:, :width], scales.reshape(shape), zeros.reshape(shape)


def widest(bits: int) -> float:
    """The largest end of a range of integers: the outermost code, 2^bits / (2^bits − 1) of it, is still finite."""
    return HUGE * (1 - 2.0**-bits) * (1 - 2.0**-20)


def _rounded(values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None) -> torch.Tensor:
    """Of rows (n, width) in float32."""
    width, values = values.shape[1], _in_groups(values, numbers)
    units, scales, _ = _grid(values, numbers, static_range)
    found = units.mul_(scales)
    if static_range is not None:  # a fixed range would clip what is not finite; a range of its own has made the scale NaN
        found.add_(values - values)
    return found.flatten(1)[:, :width]


def _in_groups(values: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    """(n, width) as (n, groups, size), the last group filled up with zeros; as they are where a row is one group."""
    width, size = values.shape[1], numbers.group_size
    if not 0 < size < width:
        return values
    values = torch.nn.functional.pad(values, (0, -width % size)) if width % size else values
    return values.view(len(values), -1, size)


def _grid(
    values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | int]:
    """Numbers of the format that are nearest to values (…, size) over their scales, scales and zero points (…, 1)."""
    return (_integers if numbers.format == "int" else _elements)(values, numbers, static_range)


def _integers(
    values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | int]:
    """Scales as `formats.fit_grid` makes them, in float32."""
    levels = 2**numbers.bits - 1
    # torch.aminmax is several times slower
    low, high = (values.amin(-1, True), values.amax(-1, True)) if static_range is None else static_range.to(values.device)
    finite = (high - high) + (low - low)  # 0, or NaN
    furthest = widest(numbers.bits)
    low, high = low.clamp(-furthest, furthest), high.clamp(-furthest, furthest)
    if numbers.symmetric:
        scales = torch.maximum(high, -low) / (levels / 2)
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scales = (high / 2 - low / 2) / (levels / 2)  # no sum that overflows
    scales = scales.clamp(TINY) + finite
    zeros = 2 ** (numbers.bits - 1) if numbers.symmetric else (-low / scales).round_().clamp_(0, levels)
    return (values / scales).round_().clamp_(-zeros, levels - zeros), scales, zeros


def _elements(
    values: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | int]:
    element = ELEMENTS[numbers.format]
    largest = values.abs().amax(-1, keepdim=True) if static_range is None else static_range.abs().max().to(values.device)
    finite = largest - largest
    if numbers.format in MX:
        exponents = shared_exponents(largest, element)
        return nearest(values * power_of_two(-exponents), element), power_of_two(exponents) + finite, 0
    scales = (largest / element.largest).clamp(TINY) + finite
    return nearest(values / scales, element), scales, 0
