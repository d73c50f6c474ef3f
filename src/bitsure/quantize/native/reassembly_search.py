"""How far outlier channels are taken apart: the threshold with which the quantized block's output is nearest to what it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.inference.hooks import InferenceRounding, InputTransform
from bitsure.quantize.inference.reassembly import ReassembledInput, Reassembly, distances, grid, reassemble
from bitsure.quantize.native.chain_quantizer import ChainQuantizer
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.walk.blocks import Feed, channel_ranges, measure
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

    Magnitudes and Hessians are of all calibration text; each threshold is tried on SEARCHED tokens of it, in batches that lie
    evenly in it (`tokens` of what was searched): the block runs once for each threshold and input, so that all of it would take
    many times as long as everything else. groups: layers that read one input, by their names in the block. Returns what was
    done, also where nothing was, and the ranges (low, high) of the inputs by layer where activations are static.
    """
    number = max(1, min(len(feed.batches), SEARCHED // feed.batches[0].shape[:-1].numel()))
    tried = [feed.batches[i] for i in torch.linspace(0, len(feed.batches) - 1, number).round().int().tolist()]
    ranges, statistics = channel_ranges(groups, feed), measure(groups, feed)
    done = []
    for group, (low, high), inputs in zip(groups, ranges, statistics, strict=True):
        names = [f"{prefix}.{name}" for name in group]
        if not (high - low).isfinite().all():
            raise UserError(f"The inputs of {', '.join(names)} hold NaN or infinite values on the calibration text.")
        largest = torch.maximum(high, -low)
        found, searched = search(group, largest, inputs.hessian, lambda: torch.cat(list(map(feed.run, tried))), quant, hooks)
        done.append(ReassembledInput(names, found, searched | {"tokens": sum(states.shape[:-1].numel() for states in tried)}))
    for group, one in zip(groups, done, strict=True):
        if one.reassembly.changes_channels:
            one.apply(lambda name: block.get_submodule(name.removeprefix(f"{prefix}.")))
            hooks.on_layers(list(group.values()), InputTransform(reassembly=one.reassembly))
    spans: dict[str, torch.Tensor] = {}
    if quant.activations.static:
        for one, (low, high) in zip(done, channel_ranges(groups, feed), strict=True):
            spans |= dict.fromkeys(one.layers, torch.stack([low.min(), high.max()]).cpu())
    return done, spans


def search(
    group: dict[str, nn.Module],
    largest: torch.Tensor,
    hessian: torch.Tensor,
    run: Callable[[], torch.Tensor],
    quant: ChainQuantizer,
    hooks: InferenceRounding,
) -> tuple[Reassembly, dict[str, float]]:
    """The reassembly of a group's input whose rounding changes the block's output least (equation 6 and algorithm 1).

    The paper takes the attention's output or the feed-forward layer's; here it is the block's, whatever the family. One of
    the choices is to leave all channels whole. largest: max|x_i| of the channels, (in,); hessian: the mean of x xᵀ, (in, in);
    run: runs calibration text through the block and returns what it gives. Also returned:
    `largest_over_median` of those magnitudes, how many `channels_moved`, and ‖change of the output‖ / ‖output‖ by rounding
    these layers `error_whole`, with whole channels, and `error`, with those chosen.
    """
    weights = {layer: matrix(layer).clone() for layer in group.values()}
    cost = distances(hessian, torch.cat([weight.float() for weight in weights.values()]))
    errors, tried = [], []
    with hooks.exact():  # what is compared differs by the rounding of these layers alone
        expected = run()
        for parts in grid(largest, STEPS):
            reassembly = reassemble(cost, parts)
            if reassembly is None:
                break  # with lower thresholds there are fewer channels left to merge, and more to make room for
            tried.append(reassembly)
            errors.append(_error(weights, reassembly, run, expected, quant))
    best = min(range(len(errors)), key=errors.__getitem__)
    moved = len(tried[best].copied)
    ratio = (largest.max() / largest.median()).item() if largest.median() > 0 else float(largest.max() > 0)
    searched = {"largest_over_median": ratio, "channels_moved": moved, "error_whole": errors[0], "error": errors[best]}
    return tried[best].cpu(), searched


def _error(
    weights: dict[nn.Module, torch.Tensor],
    reassembly: Reassembly,
    run: Callable[[], torch.Tensor],
    expected: torch.Tensor,
    quant: ChainQuantizer,
) -> float:
    """‖change of the block's output‖ / ‖output‖ where the layers read reassembled and rounded inputs with rounded weights."""

    def hook(layer: nn.Module, inputs: tuple) -> tuple:
        x = reassembly.inputs(inputs[0])
        return (InputTransform(None, quant.activations, range_of(x) if quant.activations.static else None)(x), *inputs[1:])

    with ExitStack() as stack:
        for layer, weight in weights.items():
            stack.callback(layer.register_forward_pre_hook(hook).remove)
            stack.callback(matrix(layer).copy_, weight)
            whole = reassembly.weight(weight)
            grid = quant.weight_rounding
            matrix(layer).copy_(round_to_nearest(whole, grid).dequantize() if grid else whole)
        found = run()
    return ((found - expected).float().norm() / expected.float().norm()).item()
