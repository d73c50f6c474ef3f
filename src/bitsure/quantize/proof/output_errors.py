"""How far quantization moves each layer's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.inference.hooks import InputTransform
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.targets import linears, matrix


@torch.no_grad()
def output_errors(
    model: nn.Module,
    dequantized: Mapping[str, torch.Tensor],
    held_out: torch.Tensor,
    inputs: Mapping[str, InputTransform] | None = None,
) -> dict[str, float]:
    """Return ‖Q(X)Ŵᵀ − XWᵀ‖ / ‖XWᵀ‖ of each layer, with X the inputs in the full-precision model, without bias.

    Args:
        model: The full-precision model.
        dequantized: Layer → Ŵ, shape (out, in).
        held_out: Token ids, shape (windows, seqlen).
        inputs: Layer → Q, where inputs are rounded.

    Raises:
        UserError: If no token reaches a layer, or an output is not finite; the layers are named.
    """
    sums: dict[str, torch.Tensor] = {}
    transforms = inputs or {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, given: tuple[Any, ...]) -> None:
            x, weight = given[0].flatten(0, -2), matrix(layer).float()
            expected = x.float() @ weight.T
            quantized = dequantized[name].to(matrix(layer)).float()
            # The product of the difference: a difference of products in half precision would be lost in rounding.
            change = x.float() @ (quantized - weight).T
            if name in transforms:
                change = transforms[name](x).float() @ quantized.T - expected
            squares = torch.stack([part.square().sum() for part in (change, expected)]).double().cpu()
            sums[name] = sums.get(name, 0) + squares

        return hook

    with ExitStack() as stack:
        for prefix, block, _ in walk(model, held_out):
            for name, layer in linears(block).items():
                stack.callback(layer.register_forward_pre_hook(watch(f"{prefix}.{name}")).remove)
    if idle := set(dequantized) - set(sums):
        raise UserError(f"No held-out token reached {', '.join(sorted(idle))}: give other calibration text.")
    if broken := sorted(name for name, squares in sums.items() if not squares.isfinite().all()):
        raise UserError(f"NaN or infinite outputs on the calibration text: {', '.join(broken)}. No score is taken from that.")
    return {name: root_ratio(squares[0].item(), squares[1].item()) for name, squares in sums.items()}


def root_ratio(change: float, norm: float) -> float:
    """Return the root of the ratio of two sums of squares; 0 if both are 0."""
    return float((change / norm) ** 0.5) if norm else 0.0
