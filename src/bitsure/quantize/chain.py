"""Our own quantizers: transforms, then rounding to a number format, block by block through the model."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from bitsure.errors import UserError
from bitsure.quantize import checkpoints
from bitsure.quantize.blocks import Feed, Inputs, layers_by_input, measure, walk
from bitsure.quantize.formats import IntegerWeight, Weight
from bitsure.quantize.gptq import round_with_hessian
from bitsure.quantize.rtn import round_to_nearest
from bitsure.quantize.targets import block_linears, find_blocks, linears, matrix
from bitsure.quantize.transforms import search_clip, search_scales
from bitsure.quantizers import Gptq, Integers

log = logging.getLogger(__name__)


@torch.no_grad()
def quantize(
    model: nn.Module, quant: Integers, windows: torch.Tensor, parts: Path, out: Path, advance: Callable[..., None]
) -> None:
    """Write the model's layers in a format of integers into `out`; the model itself is changed on the way if data is used.

    windows: (nsamples, seqlen) token ids, none for plain rounding to nearest. `parts` keeps the blocks that are done, so
    that a run that was broken off goes on after them. `advance` is called after each block.
    """
    if not quant.needs_data:
        rounded = {name: to_cpu(round_to_nearest(matrix(layer), quant)) for name, layer in block_linears(model).items()}
        checkpoints.write(out, rounded)
        return
    total = len(find_blocks(model)[1])
    done: list[Path] = []
    for prefix, block, feed in walk(model, windows):
        done.append(parts / prefix)
        if (kept := _read_part(done[-1])) is not None:
            for name, weight in kept.items():
                put(block.get_submodule(name.removeprefix(f"{prefix}.")), weight)
            note = "taken up again"
        else:
            before = {name: matrix(layer).clone() for name, layer in linears(block).items()}
            found = _quantize_block(block, prefix, feed, quant)
            checkpoints.write_part(done[-1], {f"{prefix}.{name}": weight for name, weight in found.items()})
            note = f"weights moved by {_relative_change(before, block):.3f}"
        advance(1, total=total, note=f"{prefix}: {note}")
        if len(done) == total:
            break  # nothing is fed by the last block
    checkpoints.merge(done, out)


def _read_part(part: Path) -> dict[str, Weight] | None:
    """A block that was done before; None if there is none, or it was cut short: then it is removed."""
    if not part.is_dir():
        return None
    try:
        return checkpoints.read(part)[0]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be read (%s): the block is quantized again", part, error)
        shutil.rmtree(part)
        return None


def _relative_change(before: dict[str, torch.Tensor], block: nn.Module) -> float:
    """‖Ŵ − W‖ / ‖W‖ over all layers of a block."""
    after = {name: matrix(layer) for name, layer in linears(block).items()}
    change = sum((after[name] - weight).float().square().sum() for name, weight in before.items())
    return (change / sum(weight.float().square().sum() for weight in before.values())).sqrt().item()


def _quantize_block(block: nn.Module, prefix: str, feed: Feed, quant: Integers) -> dict[str, Weight]:
    groups = layers_by_input(block, feed)
    together = [[group] for group in groups] if quant.true_sequential else [groups]
    weights: dict[str, Weight] = {}
    for stage in together:
        statistics = measure([next(iter(group.values())) for group in stage], feed)
        for group, inputs in zip(stage, statistics, strict=True):
            names = ", ".join(f"{prefix}.{name}" for name in group)
            found = quantize_layers({name: matrix(layer) for name, layer in group.items()}, inputs, quant, names)
            for name, weight in found.items():
                put(group[name], weight)
                weights[name] = to_cpu(weight)
        feed.replay.finish(set(weights))
    return weights


def quantize_layers(layers: dict[str, torch.Tensor], inputs: Inputs, quant: Integers, names: str) -> dict[str, IntegerWeight]:
    """Weights (out, in) that read the same input: transforms in their order, then rounding; all rows at once."""
    if not inputs.hessian.isfinite().all():
        raise UserError(f"The inputs of {names} hold NaN or infinite values on the calibration text.")
    if quant.group_size == 0 and len(layers) > 1:  # one scale a tensor: one tensor at a time
        return {name: quantize_layers({name: weight}, inputs, quant, names)[name] for name, weight in layers.items()}
    weight, hessian = torch.cat([layer.detach().float() for layer in layers.values()]), inputs.hessian
    scales = shrink = None
    if "scale" in quant.transforms:
        scales = search_scales(weight, inputs, quant)
        weight, hessian = weight * scales, hessian / scales / scales[:, None]
    if "clip" in quant.transforms:
        shrink = search_clip(weight, hessian, quant)
    if isinstance(quant, Gptq):
        rounded = round_with_hessian(weight, hessian, quant, shrink, names)
    else:
        rounded = round_to_nearest(weight, quant, shrink)
    if scales is not None:
        rounded = dataclasses.replace(rounded, input_scales=(1 / scales).half())
    rows = [len(layer) for layer in layers.values()]
    return dict(zip(layers, _split(rounded, rows), strict=True))


def _split(weight: IntegerWeight, rows: list[int]) -> list[IntegerWeight]:
    if len(rows) == 1:
        return [weight]
    parts = zip(weight.codes.split(rows), weight.scales.split(rows), weight.zeros.split(rows), strict=True)
    return [dataclasses.replace(weight, codes=codes, scales=scales, zeros=zeros) for codes, scales, zeros in parts]


@torch.no_grad()
def put(layer: nn.Module, weight: Weight) -> None:
    matrix(layer).copy_(weight.dequantize())


def to_cpu(weight: IntegerWeight) -> IntegerWeight:
    fields = {field.name: getattr(weight, field.name) for field in dataclasses.fields(weight)}
    return IntegerWeight(**{name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in fields.items()})
