"""What is done to a weight before it is rounded: scaling input channels, and clipping the range of each group.

AWQ (Lin et al. 2024) is both, followed by rounding to nearest.
"""

from __future__ import annotations

import torch

from bitsure.quantize.blocks import Inputs
from bitsure.quantize.formats import fit_grid, group_index, to_codes
from bitsure.quantize.rtn import in_groups, round_to_nearest
from bitsure.quantizers import Integers

EXPONENTS = torch.arange(20) / 20  # of the channels' mean magnitude
SHRINKS = 1 - torch.arange(11) / 20  # 1, .95, … .5


def search_scales(weight: torch.Tensor, inputs: Inputs, quant: Integers) -> torch.Tensor:
    """Input channels' scales s (in,), float32: W·diag(s) is rounded and the input divided by s.

    s = mean|x|^α, normalized to a geometric middle of 1, with the α of the grid that makes the output error of rounding,
    tr((Ŵ − W) H (Ŵ − W)ᵀ), smallest (Lin et al. 2024, equations 4 and 5). α = 0 leaves the weight as it is.
    """
    best, chosen = torch.inf, torch.ones_like(inputs.mean_abs)
    for exponent in EXPONENTS.tolist():
        scales = inputs.mean_abs.clamp(min=1e-4) ** exponent
        scales = stored_scales(scales / (scales.max() * scales.min()).sqrt())
        change = round_to_nearest(weight * scales, quant).dequantize() / scales - weight
        error = ((change @ inputs.hessian) * change).sum().item()
        if error < best:
            best, chosen = error, scales
    return chosen


def stored_scales(scales: torch.Tensor) -> torch.Tensor:
    """Scales as they come back from storage, where their inverses are float16."""
    return 1 / (1 / scales).half().float()


def search_clip(weight: torch.Tensor, hessian: torch.Tensor, quant: Integers) -> torch.Tensor:
    """How much each group's range is narrowed, (out, groups) in [.5, 1]: what makes Δ_g H_gg Δ_gᵀ smallest.

    Δ_g is the rounding error of a group's weights, H_gg the part of the Hessian that belongs to them.
    """
    group_of = group_index(weight.shape[1], quant)
    values = in_groups(weight, group_of)  # (out, groups, size)
    chosen = values.new_ones(values.shape[:2])
    size = values.shape[2]
    for group in range(values.shape[1]):
        inside = torch.nonzero(group_of == group).flatten()
        inside = inside[inside < len(hessian)]
        H = torch.nn.functional.pad(hessian[inside][:, inside], (0, size - len(inside), 0, size - len(inside)))
        best = values.new_full((len(values),), torch.inf)
        for shrink in SHRINKS.tolist():
            scales, zeros = fit_grid(values[:, group], quant, shrink)
            codes = to_codes(values[:, group], scales[:, None], zeros[:, None], quant.bits)
            change = scales.float()[:, None] * (codes - zeros[:, None]) - values[:, group]
            error = ((change @ H) * change).sum(-1)
            better = error < best
            best, chosen[:, group] = torch.where(better, error, best), torch.where(better, shrink, chosen[:, group])
    return chosen
