"""Search how far outlier channels are taken apart: the threshold with the least error of the quantized block's output."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.quantize.inference.input_transform import InputTransform
from bitsure.quantize.inference.reassembly import (
    ReassembledInput,
    Reassembly,
    disassemble,
    distances,
    expanded,
    grid,
    reassemble,
)
from bitsure.quantize.native.chain_quantizer import ChainQuantizer
from bitsure.quantize.native.layers import check_finite
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.walk.blocks import Feed
from bitsure.quantize.walk.layer_inputs import channel_ranges, measure
from bitsure.quantize.walk.targets import matrix
from bitsure.quantize.weights.fake_quantize import range_of

STEPS = 50  # thresholds tried, from the largest magnitude of a channel down to the smallest
SEARCHED = 8192  # tokens of calibration text on which each threshold is tried, at least one of the walk's batches


@torch.no_grad()
def reassemble_block(
    block: nn.Module,
    prefix: str,
    feed: Feed,
    groups: list[dict[str, nn.Module]],
    quant: ChainQuantizer,
    hooks: InferenceRounding,
) -> tuple[list[ReassembledInput], dict[str, torch.Tensor]]:
    """Reassemble the inputs of all linear layers of a block, and change their weights and hooks.

    Magnitudes and Hessians are of all calibration text. Each threshold is tried on SEARCHED tokens of it, in batches that lie
    evenly in it: the block runs once for each threshold and input, so that all text would take many times as long as
    everything else.

    Args:
        block: The block.
        prefix: Its name in the model.
        feed: Runs the calibration text through it.
        groups: Layers that read the same input, by their names in the block.
        quant: The chain.
        hooks: The hooks of the model's layers.

    Returns:
        How each group's input is reassembled, also if no channel is taken apart, and layer → (low, high) of its input, shape
        (2,), if activations are static.

    Raises:
        UserError: If an input holds NaN or infinite values.
    """
    number = max(1, min(len(feed.batches), SEARCHED // feed.batches[0].shape[:-1].numel()))
    tried = [feed.batches[i] for i in torch.linspace(0, len(feed.batches) - 1, number).round().int().tolist()]
    ranges, statistics = channel_ranges(groups, feed), measure(groups, feed)
    reassembled = []
    for group, (low, high), inputs in zip(groups, ranges, statistics, strict=True):
        names = [f"{prefix}.{name}" for name in group]
        check_finite(high - low, ", ".join(names))
        largest = torch.maximum(high, -low)
        chosen, searched = search(group, largest, inputs.hessian, lambda: torch.cat(list(map(feed.run, tried))), quant, hooks)
        tokens = sum(states.shape[:-1].numel() for states in tried)
        reassembled.append(ReassembledInput(names, chosen, searched | {"tokens": tokens}))
    for group, each in zip(groups, reassembled, strict=True):
        if each.reassembly.changes_channels and not each.reassembly.is_wider:  # A wider layer's input changes as it is rounded.
            each.apply(lambda name: block.get_submodule(name.removeprefix(f"{prefix}.")))
            hooks.on_layers(list(group.values()), InputTransform(reassembly=each.reassembly))
    static_ranges: dict[str, torch.Tensor] = {}
    if quant.has_static_activations:
        for each, (low, high) in zip(reassembled, channel_ranges(groups, feed), strict=True):
            if each.reassembly.is_wider:
                low, high = (each.reassembly.inputs(limit) for limit in (low, high))
            static_ranges |= dict.fromkeys(each.layers, torch.stack([low.min(), high.max()]).cpu())
    return reassembled, static_ranges


def search(
    group: dict[str, nn.Module],
    largest: torch.Tensor,
    hessian: torch.Tensor,
    run: Callable[[], torch.Tensor],
    quant: ChainQuantizer,
    hooks: InferenceRounding,
) -> tuple[Reassembly, dict[str, float]]:
    """Return the reassembly of a group's input with which rounding changes the block's output least.

    The paper compares the attention's output or the feed-forward layer's; here it is the block's, whatever the family. One of
    the choices is to leave all channels whole. With `quant.expansion` nothing is chosen: as many copies are made as it allows.

    Args:
        group: Layers that read the same input, by their names in the block.
        largest: max|x_i| of the channels, shape (in,).
        hessian: The mean of x xᵀ, shape (in, in).
        run: Runs calibration text through the block and returns its output.
        quant: The chain.
        hooks: The hooks of the model's layers, which are paused meanwhile.

    Returns:
        The reassembly, on the CPU, and of the search: `largest_over_median` of the magnitudes, how many `channels_moved`, and
        ‖change of the output‖ / ‖output‖ by rounding these layers, with whole channels (`error_whole`) and with those chosen
        (`error`).

    Reference: Liu et al. 2024, equation 6 and algorithm 1.
    """
    weights = {layer: matrix(layer).clone() for layer in group.values()}
    cost = distances(hessian, torch.cat([weight.float() for weight in weights.values()]))
    errors, tried = [], []
    with hooks.exact():  # Outputs differ by the rounding of these layers alone.
        expected = run()
        for parts in _choices(largest, quant):
            reassembly = disassemble(parts) if "disassemble" in quant.transforms else reassemble(cost, parts)
            if reassembly is None:
                break  # Lower thresholds leave fewer channels to merge, and need more of them.
            tried.append(reassembly)
            errors.append(_error(weights, reassembly, run, expected, quant))
    best = min(range(len(errors)), key=errors.__getitem__) if quant.expansion is None else len(tried) - 1
    outliers = len(tried[best].copied)
    ratio = (largest.max() / largest.median()).item() if largest.median() > 0 else float(largest.max() > 0)
    searched = {"largest_over_median": ratio, "channels_moved": outliers, "error_whole": errors[0], "error": errors[best]}
    return tried[best].on(torch.device("cpu")), searched


def _choices(largest: torch.Tensor, quant: ChainQuantizer) -> list[torch.Tensor]:
    """Return the numbers of copies (in,) that are tried, the first of them all ones."""
    if quant.expansion is None:
        return grid(largest, STEPS)
    return [torch.ones_like(largest, dtype=torch.long), expanded(largest, quant.expansion)]


def _error(
    weights: dict[nn.Module, torch.Tensor],
    reassembly: Reassembly,
    run: Callable[[], torch.Tensor],
    expected: torch.Tensor,
    quant: ChainQuantizer,
) -> float:
    """Return ‖change of the block's output‖ / ‖output‖ with reassembled and rounded inputs and weights of the layers."""

    def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        static_range = range_of(reassembly.inputs(inputs[0])) if quant.has_static_activations else None
        transform = InputTransform(None, quant.activations, static_range, reassembly=reassembly)
        return (transform(inputs[0]), *inputs[1:])

    with ExitStack() as stack:
        for layer, weight in weights.items():
            stack.callback(layer.register_forward_pre_hook(hook).remove)
            stack.callback(matrix(layer).copy_, weight)
            whole = reassembly.weight(weight)
            grid = quant.weight_rounding
            matrix(layer).copy_(round_to_nearest(whole, grid).dequantize() if grid else whole)
        output = run()
    return float((output - expected).float().norm() / expected.float().norm())
