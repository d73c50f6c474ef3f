"""Round to nearest: the baseline of weight quantization, one scale for each group of a row."""

from __future__ import annotations

import torch

from bitsure.config.quantizers import Rounded
from bitsure.quantize.weights import ElementWeight, IntegerWeight
from bitsure.quantize.weights.grid import fit_grid, group_index, to_units, weight_from_units, whole_scale


def round_to_nearest(
    weight: torch.Tensor, quant: Rounded, shrink: tuple[torch.Tensor, ...] = ()
) -> IntegerWeight | ElementWeight:
    """Round a weight to the nearest numbers of its groups' grids.

    Args:
        weight: Shape (out, in), any floating type.
        quant: The number format.
        shrink: How much each group's range is narrowed, as in `fit_grid`: none, one or two tensors of shape (out, groups).

    Returns:
        The rounded weight.
    """
    weight = weight.detach().float()
    width = weight.shape[1]
    group_of = group_index(width, quant)
    values = in_groups(weight, group_of)  # (out, groups, size)
    whole = values.reshape(1, 1, -1) if quant.group_size == 0 else values
    scale = whole_scale(weight, quant)
    scales, zeros = fit_grid(whole, quant, *shrink, whole=scale)
    units = to_units(values, scales[..., None], zeros[..., None], quant).view(len(weight), -1)[:, : len(group_of)]
    return weight_from_units(units, (scales, zeros), group_of, width, quant, scale)


def in_groups(weight: torch.Tensor, group_of: torch.Tensor) -> torch.Tensor:
    """Return a matrix (out, in) as its groups, (out, groups, size), the last one filled up with zeros."""
    groups, size = int(group_of[-1]) + 1, int((group_of == 0).sum())
    return torch.nn.functional.pad(weight, (0, groups * size - weight.shape[1])).view(len(weight), groups, size)
