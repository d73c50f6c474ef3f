"""How far quantization moves each layer's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.inference.hooks import InputTransform
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.targets import linears, matrix


@dataclass(frozen=True)
class OutputError:
    """How far a layer's output moves, relative to the output's norm."""

    whole: float
    """‖E‖ / ‖XWᵀ‖ with E = Q(X)Ŵᵀ − XWᵀ."""
    centred: float
    """‖E − ē‖ / ‖XWᵀ‖ with ē the mean of E over tokens, at most `whole`."""
    first_token: float | None
    """‖E‖ / ‖XWᵀ‖ over the first tokens of the windows; None where a layer is not given windows."""


@dataclass
class _OutputSums:
    """Sums over the tokens that reach a layer."""

    squared_change: float = 0.0
    squared_output: float = 0.0
    tokens: int = 0
    squared_first_change: float = 0.0
    squared_first_output: float = 0.0
    has_first: bool = False
    change: torch.Tensor | float = 0.0
    """Of the rows of E, (out,) float64."""

    def error(self) -> OutputError:
        constant = float(torch.as_tensor(self.change).square().sum()) / max(self.tokens, 1)
        centred = max(self.squared_change - constant, 0.0)
        first = root_ratio(self.squared_first_change, self.squared_first_output) if self.has_first else None
        return OutputError(
            root_ratio(self.squared_change, self.squared_output), root_ratio(centred, self.squared_output), first
        )


@torch.no_grad()
def output_errors(
    model: nn.Module,
    dequantized: Mapping[str, torch.Tensor],
    held_out: torch.Tensor,
    inputs: Mapping[str, InputTransform] | None = None,
) -> dict[str, OutputError]:
    """Return the error of each layer's output, with X the inputs in the full-precision model, without bias.

    Args:
        model: The full-precision model.
        dequantized: Layer → Ŵ, shape (out, in).
        held_out: Token ids, shape (windows, seqlen).
        inputs: Layer → Q, where inputs are rounded.

    Raises:
        UserError: If no token reaches a layer, or an output is not finite; the layers are named.
    """
    sums: dict[str, _OutputSums] = {}
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
            total = sums.setdefault(name, _OutputSums())
            total.squared_change += change.square().sum().item()
            total.squared_output += expected.square().sum().item()
            total.change += change.sum(0).double().cpu()
            total.tokens += len(x)
            if given[0].dim() == 3:  # windows, tokens, channels; an expert is given tokens without their places
                seqlen = given[0].shape[1]
                total.squared_first_change += change[::seqlen].square().sum().item()
                total.squared_first_output += expected[::seqlen].square().sum().item()
                total.has_first = True

        return hook

    with ExitStack() as stack:
        for prefix, block, _ in walk(model, held_out):
            for name, layer in linears(block).items():
                stack.callback(layer.register_forward_pre_hook(watch(f"{prefix}.{name}")).remove)
    if idle := set(dequantized) - {name for name, each in sums.items() if each.tokens}:
        raise UserError(f"No held-out token reached {', '.join(sorted(idle))}: give other calibration text.")
    if broken := sorted(name for name, each in sums.items() if not isfinite(each.squared_change + each.squared_output)):
        raise UserError(f"NaN or infinite outputs on the calibration text: {', '.join(broken)}. No score is taken from that.")
    return {name: each.error() for name, each in sums.items()}


def root_ratio(change: float, norm: float) -> float:
    """Return the root of the ratio of two sums of squares; 0 if both are 0."""
    return float((change / norm) ** 0.5) if norm else 0.0
