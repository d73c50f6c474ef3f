"""Fake quantization: values become the numbers of a format that are nearest to them, and stay floating-point tensors."""

from __future__ import annotations

import torch

from bitsure.number_formats import ELEMENTS, MX, Numbers
from bitsure.quantize.elements import nearest, power_of_two, shared_exponents

TINY = torch.finfo(torch.float32).tiny  # the smallest scale: that of a group of zeros
HUGE = torch.finfo(torch.float32).max


def fake_quantize(values: torch.Tensor, numbers: Numbers, span: torch.Tensor | None = None) -> torch.Tensor:
    """Values (…, width) of any floating type as a format rounds them, in the same type and shape.

    Groups lie along the last dimension, the last one shorter where they do not divide it; span: (low, high), the range of a
    group size of 0. Computed in float32, in which the results are exactly numbers of the format times their scale; half
    precision rounds that once more, which MX formats of its range survive. A group with NaN or an infinity becomes NaN.
    """
    width, size = values.shape[-1], numbers.group_size
    found = values.detach().float()
    if 0 < size < width:
        found = torch.nn.functional.pad(found, (0, -width % size)).unflatten(-1, (-1, size))
    rounded = _integers if numbers.format == "int" else _elements
    found = rounded(found, numbers, span)
    if 0 < size < width:
        found = found.flatten(-2)[..., :width]
    return straight_through(values, found.to(values.dtype))


def straight_through(values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """`rounded`, through which gradients go to `values` as if nothing was rounded (Bengio et al. 2013)."""
    return values + (rounded - values).detach() if values.requires_grad else rounded


def span_of(values: torch.Tensor) -> torch.Tensor:
    """The lowest and the highest of all values, (2,) float32."""
    return torch.stack(torch.aminmax(values.float()))


def _integers(values: torch.Tensor, numbers: Numbers, span: torch.Tensor | None) -> torch.Tensor:
    """Scales as `formats.fit_grid` makes them, in float32."""
    levels = 2**numbers.bits - 1
    low, high = torch.aminmax(values, dim=-1, keepdim=True) if span is None else span.to(values.device)
    finite = (high - high) + (low - low)  # 0, or NaN
    if numbers.symmetric:
        scales = torch.maximum(high, -low) * 2 / levels
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scales = (high - low) / levels
    scales = scales.clamp(TINY, HUGE / levels) + finite
    zeros = 2 ** (numbers.bits - 1) if numbers.symmetric else (-low / scales).round_().clamp_(0, levels)
    found = (values / scales).round_().clamp_(-zeros, levels - zeros)
    return _or_nan(found.mul_(scales), values, span)


def _elements(values: torch.Tensor, numbers: Numbers, span: torch.Tensor | None) -> torch.Tensor:
    element = ELEMENTS[numbers.format]
    largest = values.abs().amax(-1, keepdim=True) if span is None else span.abs().max().to(values.device)
    finite = largest - largest
    if numbers.format in MX:
        exponents = shared_exponents(largest, element)
        return nearest(values * power_of_two(-exponents), element).mul_(power_of_two(exponents) + finite)
    scales = (largest / element.largest).clamp(TINY) + finite
    return _or_nan(nearest(values / scales, element).mul_(scales), values, span)


def _or_nan(found: torch.Tensor, values: torch.Tensor, span: torch.Tensor | None) -> torch.Tensor:
    """With a range of its own a group that is not finite has a scale of NaN; with a fixed one it would be clipped."""
    return found if span is None else found.add_(values - values)
