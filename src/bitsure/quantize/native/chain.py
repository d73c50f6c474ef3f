"""Our own quantizers: transforms, then number formats of weights, activations, keys and values, block by block.

What calibration measures in a layer's inputs is what the quantized model will give that layer: earlier blocks and layers are
rounded, keys and values are, and so is the input itself.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from bitsure.config.quantizers import Rounded
from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint
from bitsure.quantize.checkpoint.write_checkpoint import merge_parts, write_checkpoint, write_part
from bitsure.quantize.inference.divisions import Division, DivisionSource, find_sources
from bitsure.quantize.inference.hooks import InferenceRounding, InputTransform, attach_block, rounding
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.native import reassembly_search, tuning
from bitsure.quantize.native.chain_quantizer import ChainQuantizer
from bitsure.quantize.native.layers import Moved, check_finite, quantize_layers, to_cpu
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.transforms import search_scales, smoothing_scales
from bitsure.quantize.walk.blocks import Feed, channel_ranges, layers_by_input, measure, walk
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import block_linears, find_blocks, linears, matrix
from bitsure.quantize.weights import Weight


@dataclass(frozen=True)
class Known:
    """What was found out about blocks, by their structure, which those after them share."""

    groups: dict[str, list[list[str]]] = field(default_factory=dict)  # as `layers_by_input` finds them
    sources: dict[str, list[DivisionSource]] = field(
        default_factory=dict
    )  # where divisions are folded; `verify` proves it of each


log = logging.getLogger(__name__)


@torch.no_grad()
def quantize(
    model: nn.Module, quant: ChainQuantizer, windows: torch.Tensor, parts: Path, out: Path, advance: Callable[..., None]
) -> None:
    """Write the model's layers in their format, and what it does at run time, into `out`.

    The model itself is changed on the way if data is used. windows: (nsamples, seqlen) token ids, none where no data is
    needed. `parts` keeps the blocks that are done, so that a run that was broken off goes on after them. `advance` is called
    after each block.
    """
    if not quant.needs_data:
        grid, rounded = quant.weight_rounding, {}
        if grid is not None:
            rounded = {name: to_cpu(round_to_nearest(matrix(layer), grid)) for name, layer in block_linears(model).items()}
        write_checkpoint(out, rounded, scheme=InferenceScheme(quant.activations, quant.kv))
        return
    total = len(find_blocks(model)[1])
    done: list[Path] = []
    hooks, known = InferenceRounding(), Known()
    exact: list[torch.Tensor] | None = None  # what the full-precision model's blocks give, where that is learned from
    for prefix, block, feed in walk(model, windows):
        if quant.block_tuning is not None:
            exact = [feed.run(states) for states in (feed.batches if exact is None else exact)]
        done.append(parts / prefix)
        if _take_up(done[-1], prefix, block, hooks):
            note = "taken up again"
        else:
            weights, scheme, change = _quantize_block(block, prefix, feed, quant, hooks, known, exact)
            write_part(done[-1], weights, scheme)
            note = f"weights moved by {change:.3f}"
        advance(1, total=total, note=f"{prefix}: {note}")
        if len(done) == total:
            break  # nothing is fed by the last block
    merge_parts(done, out)


def _take_up(part: Path, prefix: str, block: nn.Module, hooks: InferenceRounding) -> bool:
    """Make a block what it became before the break; False if it was not reached, or what was kept is cut short."""
    if not part.is_dir():
        return False
    try:
        weights, scheme = read_checkpoint(part)[0], InferenceScheme.read(part)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be read (%s): the block is quantized again", part, error)
        shutil.rmtree(part)
        return False
    for division in scheme.divisions:
        division.apply(lambda name: block.get_submodule(name.removeprefix(f"{prefix}.")))
    for reassembled in scheme.reassembled:
        reassembled.apply(lambda name: block.get_submodule(name.removeprefix(f"{prefix}.")))
    for name, weight in weights.items():
        _put(block.get_submodule(name.removeprefix(f"{prefix}.")), weight, scheme)
    attach_block(hooks, prefix, block, scheme, scheme.input_factors(weights))
    return True


def _quantize_block(
    block: nn.Module,
    prefix: str,
    feed: Feed,
    quant: ChainQuantizer,
    hooks: InferenceRounding,
    known: Known,
    exact: list[torch.Tensor] | None,
) -> tuple[dict[str, Weight], InferenceScheme, float]:
    """The block's weights and what it does at run time, by full names, and ‖Ŵ − W‖ / ‖W‖ over its layers.

    exact: what the block gives in the full-precision model, batch by batch, where it is tuned.
    """
    if quant.kv is not None:
        hooks.on_keys_and_values(block, rounding(quant.kv))
    groups = layers_by_input(block, feed, known.groups)
    divisions, spans, moved = _prepare(block, prefix, feed, groups, quant, hooks, known)
    reassembled = []
    if "reassemble" in quant.transforms:
        reassembled, spans = reassembly_search.reassemble_block(block, prefix, feed, groups, quant, hooks)
        moved["reassemble"] = {", ".join(one.layers): float(one.reassembly.most_copies) for one in reassembled}
    before = {name: matrix(layer).clone() for name, layer in linears(block).items()}
    weights: dict[str, Weight] = {}
    scheme = InferenceScheme(quant.activations, quant.kv, divisions, spans, moved, reassembled)
    grid = quant.weight_rounding
    if grid is None:
        for group in groups:
            _round_inputs(group, prefix, None, scheme, hooks)
        return weights, scheme, 0.0
    if exact is not None and quant.block_tuning is not None:
        for group in groups:
            _round_inputs(group, prefix, None, scheme, hooks)
        moved["tuning"] = {prefix: tuning.tune(block, prefix, feed, exact, grid, quant.block_tuning)}
        for name, layer in linears(block).items():
            weights[f"{prefix}.{name}"] = to_cpu(round_to_nearest(matrix(layer), grid))
            _put(layer, weights[f"{prefix}.{name}"], scheme)
        return weights, scheme, _relative_change(before, block)
    together = [[group] for group in groups] if grid.true_sequential else [groups]
    for stage in together:
        scales: list[torch.Tensor | None] = [None] * len(stage)
        if quant.activations is not None:
            if "scale" in quant.transforms:  # by what is there before it is rounded
                scales = _search_scales(stage, prefix, feed, grid, spans)
            replay = feed.replay if grid.true_sequential else None  # nothing before a stage's only group is replaced any more
            for group, found in zip(stage, scales, strict=True):
                _round_inputs(group, prefix, found, scheme, hooks, replay)
        statistics = measure(stage, feed, means="scale" in quant.transforms)
        for group, inputs, found in zip(stage, statistics, scales, strict=True):
            names = ", ".join(f"{prefix}.{name}" for name in group)
            layers = {f"{prefix}.{name}": matrix(layer) for name, layer in group.items()}
            rounded, went = quantize_layers(layers, inputs, grid, names, found)
            for transform, how_far in went.items():
                moved.setdefault(transform, {}).update(how_far)
            for name, weight in zip(group, rounded.values(), strict=True):
                _put(group[name], weight, scheme)
                weights[name] = to_cpu(weight)
        feed.replay.finish(set(weights))
    return {f"{prefix}.{name}": weight for name, weight in weights.items()}, scheme, _relative_change(before, block)


def _prepare(
    block: nn.Module,
    prefix: str,
    feed: Feed,
    groups: list[dict[str, nn.Module]],
    quant: ChainQuantizer,
    hooks: InferenceRounding,
    known: Known,
) -> tuple[list[Division], dict[str, torch.Tensor], Moved]:
    """What is done to a block as a whole: smoothing, and the ranges of static activations."""
    static = quant.activations is not None and quant.activations.static
    if not static and "smooth" not in quant.transforms:
        return [], {}, {}
    ranges = channel_ranges(groups, feed)
    divisions, spans, moved = [], {}, {}
    if "smooth" in quant.transforms and repr(block) not in known.sources:
        states = feed.batches[0]
        known.sources[repr(block)] = find_sources(block, groups, lambda: feed.run(states).float() - states.float())
    for number, (group, (low, high)) in enumerate(zip(groups, ranges, strict=True)):
        names = [f"{prefix}.{name}" for name in group]
        check_finite(high - low, ", ".join(names))
        if "smooth" in quant.transforms:
            scales = smoothing_scales(torch.maximum(high, -low), _rows(group), quant.smooth_alpha)
            source, multiplies_by = known.sources[repr(block)][number]
            division = Division(names, scales.cpu(), source and f"{prefix}.{source}", multiplies_by)
            division.apply(lambda name: block.get_submodule(name.removeprefix(f"{prefix}.")))
            if source is None:
                hooks.on_layers(list(group.values()), InputTransform(1 / scales))
            divisions.append(division)
            moved.setdefault("smooth", {})[", ".join(names)] = (scales.max() / scales.min()).item()
            low, high = low / scales, high / scales
        if static:
            spans |= _span(names, low, high)
    return divisions, spans, moved


def _search_scales(
    stage: list[dict[str, nn.Module]], prefix: str, feed: Feed, quant: Rounded, spans: dict[str, torch.Tensor]
) -> list[torch.Tensor]:
    """The scales (in,) of each group's input; static ranges in `spans` become those of the input divided by them."""
    weights = [_rounded_together(group, quant) for group in stage]
    scales = [search_scales(of, inputs, quant) for of, inputs in zip(weights, measure(stage, feed, means=True), strict=True)]
    if quant.activations.static:
        for group, found, (low, high) in zip(stage, scales, channel_ranges(stage, feed), strict=True):
            spans |= _span([f"{prefix}.{name}" for name in group], low / found, high / found)
    return scales


def _span(names: list[str], low: torch.Tensor, high: torch.Tensor) -> dict[str, torch.Tensor]:
    """The range of a tensor whose channels have these, (in,), by layer."""
    return dict.fromkeys(names, torch.stack([low.min(), high.max()]).cpu())


def _round_inputs(
    group: dict[str, nn.Module],
    prefix: str,
    scales: torch.Tensor | None,
    scheme: InferenceScheme,
    hooks: InferenceRounding,
    replay: Replay | None = None,
) -> None:
    """From now on the layers read rounded inputs, divided by `scales` (in,) before, and by smoothing before that."""
    if scheme.activations is not None:
        span = scheme.static_ranges.get(f"{prefix}.{next(iter(group))}")
        change = InputTransform(None if scales is None else 1 / scales, scheme.activations, span)
        hooks.on_layers(list(group.values()), change, replay)


def _rounded_together(group: dict[str, nn.Module], quant: Rounded) -> list[torch.Tensor]:
    """The weights (out, in) of layers that read one input; with one scale a tensor each by itself."""
    return [matrix(layer).detach().float() for layer in group.values()] if quant.group_size == 0 else [_rows(group)]


def _rows(group: dict[str, nn.Module]) -> torch.Tensor:
    return torch.cat([matrix(layer).detach().float() for layer in group.values()])


def _relative_change(before: dict[str, torch.Tensor], block: nn.Module) -> float:
    after = {name: matrix(layer) for name, layer in linears(block).items()}
    change = sum((after[name] - weight).float().norm() ** 2 for name, weight in before.items())
    return (change / sum(weight.float().norm() ** 2 for weight in before.values())).sqrt().item()


@torch.no_grad()
def _put(layer: nn.Module, weight: Weight, scheme: InferenceScheme) -> None:
    matrix(layer).copy_(scheme.layer_matrix(weight))
