"""How far quantization moves each layer's output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.base.progress import counted, progress
from bitsure.quantize.inference.input_transform import InputTransform
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.targets import block_linears, find_blocks, linears, matrix, never_run, not_reached

log = logging.getLogger(__name__)


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

    squares: torch.Tensor
    """Of E and of the output, then of both over the first tokens; where the model runs, since a copy would wait for a GPU."""
    tokens: int = 0
    has_first: bool = False
    change: torch.Tensor | float = 0.0
    """Of the rows of E, (out,) float64."""

    def error(self) -> OutputError:
        """Return the layer's error."""
        change, output, first_change, first_output = self.squares.tolist()
        constant = float(torch.as_tensor(self.change).square().sum()) / max(self.tokens, 1)
        centred = max(change - constant, 0.0)
        first = root_ratio(first_change, first_output) if self.has_first else None
        return OutputError(root_ratio(change, output), root_ratio(centred, output), first)


@torch.no_grad()
def output_errors(
    model: nn.Module,
    weight_now: Callable[[str, nn.Module], torch.Tensor],
    held_out: torch.Tensor,
    inputs: Mapping[str, InputTransform] | None = None,
) -> dict[str, OutputError]:
    """Return the error of each layer's output, with X the inputs in the full-precision model, without bias.

    Args:
        model: The full-precision model.
        weight_now: Returns Ŵ, shape (out, in), given a layer's name and the layer itself, whose weights are in memory.
        held_out: Token ids, shape (windows, seqlen).
        inputs: Layer → Q, where inputs are rounded.

    Raises:
        UserError: If no token reaches a layer, or an output is not finite; the layers are named.
    """
    sums: dict[str, _OutputSums] = {}
    weights: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # of a block's layers: theirs and the quantized ones
    of_experts: dict[str, torch.Tensor] = {}  # of a block's experts: the quantized ones, in main memory
    transforms = inputs or {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, given: tuple[Any, ...]) -> None:
            is_expert = given[0].dim() < 3  # given tokens without their places; all experts could be too large for a GPU
            kept = {} if is_expert else weights
            if name not in kept:
                read = of_experts[name] if name in of_experts else weight_now(name, layer)
                if is_expert and read.device.type == "cpu":
                    of_experts[name] = read
                kept[name] = matrix(layer).float(), read.to(matrix(layer), non_blocking=True).float()
            x, (weight, quantized) = given[0].flatten(0, -2), kept[name]
            expected = x.float() @ weight.T
            if name in transforms:
                change = transforms[name](x).float() @ quantized.T - expected
            else:  # The product of the difference: a difference of products in half precision would be lost in rounding.
                change = x.float() @ (quantized - weight).T
            total = sums.setdefault(name, _OutputSums(x.new_zeros(4, dtype=torch.float64)))
            total.change += change.sum(0).double()
            total.tokens += len(x)
            total.has_first |= not is_expert
            every = given[0].shape[1] if total.has_first else max(len(x), 1)
            parts = (change, expected, change[::every], expected[::every])
            total.squares += torch.stack([part.square().sum() for part in parts]).double()

        return hook

    _, blocks = find_blocks(model)
    with progress("verifying the weights", len(blocks), "blocks") as advance, ExitStack() as stack:
        for prefix, block, _ in counted(walk(model, held_out, reach_all=True), advance):
            weights.clear()
            of_experts.clear()
            for name, layer in linears(block).items():
                stack.callback(layer.register_forward_pre_hook(watch(f"{prefix}.{name}")).remove)
            _say_what_runs(prefix, block, stack)
    if idle := block_linears(model).keys() - {name for name, each in sums.items() if each.tokens}:
        raise not_reached(sorted(idle))
    if broken := sorted(name for name, each in sums.items() if not isfinite(each.squares[:2].sum())):
        raise UserError(f"NaN or infinite outputs on the calibration text: {', '.join(broken)}. No score is taken from that.")
    return {name: each.error() for name, each in sums.items()}


def _say_what_runs(prefix: str, block: nn.Module, stack: ExitStack) -> None:
    """Say once of each layer of a block whose name tells that it is never run, if the model runs it."""
    warned: set[str] = set()

    def hook(name: str, layer: nn.Module, given: tuple[Any, ...]) -> None:
        if name not in warned:
            warned.add(name)
            log.warning("%s: keeps full precision, though the model runs it: other models never run layers of this name", name)

    for name, layer in never_run(block).items():
        stack.callback(layer.register_forward_pre_hook(partial(hook, f"{prefix}.{name}")).remove)


def root_ratio(change: float, norm: float) -> float:
    """Return the root of the ratio of two sums of squares; 0 if both are 0."""
    return float((change / norm) ** 0.5) if norm else 0.0
