"""What is done before rounding: scaling input channels (smooth, scale), and clipping the range of each group of weights.

AWQ (Lin et al. 2024) is scale and clip, followed by rounding to nearest. Clipping and scaling by search are also two of the
algorithms of LLM-QBench (Gong et al. 2024).
"""

from __future__ import annotations

import itertools

import torch

from bitsure.config.quantizers import Rounded
from bitsure.quantize.native.rounding import in_groups, round_to_nearest
from bitsure.quantize.walk.blocks import Inputs
from bitsure.quantize.weights.grid import fit_grid, group_index, to_units

EXPONENTS = torch.arange(20) / 20  # of the channels' mean magnitude
SHRINKS = 1 - torch.arange(11) / 20  # 1, .95, … .5


def smoothing_scales(largest: torch.Tensor, weight: torch.Tensor, alpha: float) -> torch.Tensor:
    """s_j = max|X_j|^α / max|W_j|^(1−α) (Xiao et al. 2023, equation 4), (in,) float32: X is divided by s and W multiplied.

    largest: max|X_j| of the input channels, (in,); weight: all rows that read them, (out, in). A channel that is always
    zero, or that no weight reads, keeps 1.
    """
    columns = weight.abs().amax(0)
    scales = largest**alpha / columns ** (1 - alpha)
    return torch.where((largest > 0) & (columns > 0), scales, 1.0)


def search_scales(weights: list[torch.Tensor], inputs: Inputs, quant: Rounded) -> torch.Tensor:
    """Input channels' scales s (in,), float32: W·diag(s) is rounded and the input divided by s.

    weights: all that read the input, (out, in), each rounded by itself.

    s = mean|x|^α, normalized to a geometric middle of 1, with the α of the grid that makes the output error of rounding,
    tr((Ŵ − W) H (Ŵ − W)ᵀ), smallest (Lin et al. 2024, equations 4 and 5). α = 0 leaves the weight as it is.
    """
    best, chosen = torch.inf, torch.ones_like(inputs.mean_abs)
    for exponent in EXPONENTS.tolist():
        scales = inputs.mean_abs.clamp(min=1e-4) ** exponent
        scales = stored_scales(scales / (scales.max() * scales.min()).sqrt())
        changes = (round_to_nearest(weight * scales, quant).dequantize() / scales - weight for weight in weights)
        error = sum(((change @ inputs.hessian) * change).sum().item() for change in changes)
        if error < best:
            best, chosen = error, scales
    return chosen


def stored_scales(scales: torch.Tensor) -> torch.Tensor:
    """Scales as they come back from storage, where their inverses are float16."""
    return 1 / (1 / scales).half().float()


def search_clip(weight: torch.Tensor, hessian: torch.Tensor, quant: Rounded, apart: bool = False) -> tuple[torch.Tensor, ...]:
    """How much each group's range is narrowed, (out, groups) in [.5, 1]: what makes Δ_g H_gg Δ_gᵀ smallest.

    Δ_g is the rounding error of a group's weights, H_gg the part of the Hessian that belongs to them. Both ends by one factor;
    apart: the lower and the upper end of asymmetric integers by factors of their own, two tensors.
    """
    group_of = group_index(weight.shape[1], quant)
    values = in_groups(weight, group_of)  # (out, groups, size)
    tried = list(itertools.product(SHRINKS.tolist(), repeat=2 if apart else 1))
    chosen = values.new_ones(len(tried[0]), *values.shape[:2])
    size = values.shape[2]
    for group in range(values.shape[1]):
        inside = torch.nonzero(group_of == group).flatten()
        inside = inside[inside < len(hessian)]
        H = torch.nn.functional.pad(hessian[inside][:, inside], (0, size - len(inside), 0, size - len(inside)))
        best = values.new_full((len(values),), torch.inf)
        for shrink in tried:
            scales, zeros = fit_grid(values[:, group], quant, *shrink)
            units = to_units(values[:, group], scales[:, None], zeros[:, None], quant)
            change = scales.float()[:, None] * units - values[:, group]
            error = ((change @ H) * change).sum(-1)
            better = error < best
            best = torch.where(better, error, best)
            chosen[:, better, group] = values.new_tensor(shrink)[:, None]
    return tuple(chosen)
