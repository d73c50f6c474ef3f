"""Transforms before rounding: scaling input channels (smooth, scale), and clipping the range of each group of weights.

AWQ (Lin et al. 2024) is scale and clip, followed by rounding to nearest. Clipping and scaling by search are also two of the
algorithms of LLM-QBench (Gong et al. 2024).
"""

from __future__ import annotations

import itertools

import torch

from bitsure.config.quantizers import Rounded
from bitsure.quantize.native.rounding import in_groups, round_to_nearest
from bitsure.quantize.walk.layer_inputs import Inputs
from bitsure.quantize.weights.grid import fit_grid, group_index, to_units

EXPONENTS = torch.arange(20) / 20  # of the channels' mean magnitude
SHRINKS = 1 - torch.arange(11) / 20  # 1, .95, … .5


def smoothing_scales(largest: torch.Tensor, weight: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return SmoothQuant's scales s_j = max|X_j|^α / max|W_j|^(1−α), by which X is divided and W multiplied.

    Args:
        largest: max|X_j| of the input channels, shape (in,).
        weight: All rows that read them, shape (out, in).
        alpha: α, from 0 to 1.

    Returns:
        Shape (in,), float32. A channel that is always zero, or that no weight reads, has 1.

    Reference: Xiao et al. 2023, equation 4.
    """
    columns = weight.abs().amax(0)
    scales = largest**alpha / columns ** (1 - alpha)
    return torch.where((largest > 0) & (columns > 0), scales, 1.0)


def search_scales(weights: list[torch.Tensor], inputs: Inputs, quant: Rounded) -> torch.Tensor:
    """Return AWQ's scales s of the input channels: W·diag(s) is rounded and the input divided by s.

    s = mean|x|^α, divided by √(max s · min s), with the α in [0, 1) for which the output error of rounding,
    tr((Ŵ − W) H (Ŵ − W)ᵀ), is smallest. α = 0 leaves the weight as it is.

    Args:
        weights: The matrices (out, in) that read the input, each rounded by itself.
        inputs: The input's statistics, with `mean_abs`.
        quant: The number format.

    Returns:
        Shape (in,), float32.

    Reference: Lin et al. 2024, equations 4 and 5.
    """
    if inputs.mean_abs is None:
        raise ValueError("search_scales needs the inputs' mean magnitudes: measure(..., means=True)")
    tried, errors = [], []
    for exponent in EXPONENTS.tolist():
        scales = inputs.mean_abs.clamp(min=1e-4) ** exponent
        scales = stored_scales(scales / (scales.max() * scales.min()).sqrt())
        changes = (round_to_nearest(weight * scales, quant).dequantize() / scales - weight for weight in weights)
        errors.append(torch.stack([((change @ inputs.hessian) * change).sum() for change in changes]).double())
        tried.append(scales)
    best, chosen = torch.inf, torch.ones_like(inputs.mean_abs)
    for error, scales in zip(map(sum, torch.stack(errors).tolist()), tried, strict=True):  # read once: it waits for a GPU
        if error < best:
            best, chosen = error, scales
    return chosen


def stored_scales(scales: torch.Tensor) -> torch.Tensor:
    """Return scales as they come back from storage, where their inverses are float16."""
    return 1 / (1 / scales).half().float()


def search_clip(weight: torch.Tensor, hessian: torch.Tensor, quant: Rounded, apart: bool = False) -> tuple[torch.Tensor, ...]:
    """Return how much each group's range is narrowed so that Δ_g H_gg Δ_gᵀ is smallest.

    Δ_g is the rounding error of a group's weights, H_gg the part of the Hessian that belongs to them.

    Args:
        weight: Shape (out, in), float32.
        hessian: The mean of x xᵀ, shape (in, in).
        quant: The number format.
        apart: Whether the lower and the upper end of asymmetric integers have factors of their own.

    Returns:
        One tensor for both ends, or one for each; shape (out, groups), in [0.5, 1].
    """
    group_of = group_index(weight.shape[1], quant)
    values = in_groups(weight, group_of)  # (out, groups, size)
    tried = list(itertools.product(SHRINKS.tolist(), repeat=2 if apart else 1))
    chosen = values.new_ones(len(tried[0]), *values.shape[:2])
    size = values.shape[2]
    for group in range(values.shape[1]):
        inside = slice(group * size, min((group + 1) * size, len(hessian)))
        H = hessian[inside, inside]
        H = torch.nn.functional.pad(H, (0, size - len(H), 0, size - len(H)))
        best = values.new_full((len(values),), torch.inf)
        for shrink in tried:
            scales, zeros = fit_grid(values[:, group], quant, *shrink)
            units = to_units(values[:, group], scales[:, None], zeros[:, None], quant)
            change = scales.float()[:, None] * units - values[:, group]
            error = ((change @ H) * change).sum(-1)
            better = error < best
            best = torch.where(better, error, best)
            for end, factor in enumerate(shrink):
                chosen[end, :, group].masked_fill_(better, factor)
    return tuple(chosen)
