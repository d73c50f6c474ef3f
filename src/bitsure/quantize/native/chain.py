"""Our own quantizers: transforms, then number formats of weights, activations, keys and values, block by block.

Calibration measures a layer's inputs as the quantized model will compute them: earlier blocks and layers are rounded, and so
are keys, values and the inputs themselves.
"""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from bitsure.models.offloading import weights_in_memory
from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint
from bitsure.quantize.checkpoint.write_checkpoint import merge_parts, write_checkpoint, write_part
from bitsure.quantize.inference.hooks import InferenceRounding, attach_block
from bitsure.quantize.inference.input_transform import InputTransform
from bitsure.quantize.inference.keys_values import rounding
from bitsure.quantize.inference.rotations import Rotations
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.native.chain_block import ChainBlock, SharedStructure, put_weight
from bitsure.quantize.native.chain_experts import chain_experts
from bitsure.quantize.native.chain_quantizer import ChainQuantizer
from bitsure.quantize.native.rotation_learning import learned_rotations
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.proof.output_errors import root_ratio
from bitsure.quantize.rotating.rotate import rotate
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.targets import find_blocks, linears, matrix
from bitsure.quantize.weights import Weight

log = logging.getLogger(__name__)


@torch.no_grad()
def quantize(
    model: nn.Module, quant: ChainQuantizer, windows: torch.Tensor, parts: Path, out: Path, advance: Callable[..., None]
) -> None:
    """Quantize a model and write its weights, and what it does while it runs, as a checkpoint.

    Args:
        model: In full precision. It is changed if data is used.
        quant: What is done.
        windows: Token ids, shape (nsamples, seqlen); not read where no data is needed.
        parts: A directory for finished blocks, so that an interrupted run resumes after them.
        out: The checkpoint's directory, empty.
        advance: Called after each block, as `QuantizationJob.advance`.
    """
    rotations = _rotate(model, quant, windows, parts / "rotations")
    if not quant.needs_data:
        _round_weights(model, quant, parts, out, rotations, advance)
        return
    total = len(find_blocks(model)[1])
    done: list[Path] = []
    hooks, shared = InferenceRounding(), SharedStructure()
    exact: list[torch.Tensor] | None = None  # the block's outputs in the full-precision model, which tuning learns from
    for prefix, block, feed in walk(model, windows):
        if quant.block_tuning is not None:
            exact = [feed.run(states) for states in (feed.batches if exact is None else exact)]
        done.append(parts / prefix)
        if _resume(done[-1], prefix, block, hooks, rotations):
            note = "resumed"
        else:
            _follow_rotations(prefix, block, quant, hooks, rotations)
            weights: dict[str, Weight] = {}
            schemes, squares = [], []
            dense = ChainBlock(prefix, block, feed, quant, hooks, shared, rotations)
            for state in itertools.chain([dense], chain_experts(dense)):
                squares.append(state.quantize(exact))
                weights |= state.weights
                schemes.append(state.scheme)
            write_part(done[-1], weights, InferenceScheme.merge(schemes, Rotations()))
            change = root_ratio(*map(sum, zip(*squares, strict=True)))
            note = f"weights changed by {change:.3f}"
        advance(1, total=total, note=f"{prefix}: {note}", unit="blocks")
        if len(done) == total:
            break  # The last block computes no other block's input.
    merge_parts(done, out, rotations)


def _follow_rotations(
    prefix: str, block: nn.Module, quant: ChainQuantizer, hooks: InferenceRounding, rotations: Rotations
) -> None:
    """Round a block's keys and values, and rotate the inputs that rotations leave to run time."""
    if quant.kv is not None:
        hooks.on_keys_and_values(block, rounding(quant.kv, rotations.keys_and_values, block))
    for part in rotations.folded:
        inside = [name.removeprefix(f"{prefix}.") for name in part.online_layers if name.startswith(f"{prefix}.")]
        transform = InputTransform(rotation=part.rotation).on(next(block.parameters()).device)
        hooks.on_layers([block.get_submodule(name) for name in inside], transform)


def _rotate(model: nn.Module, quant: ChainQuantizer, windows: torch.Tensor, kept: Path) -> Rotations:
    """Rotate a model; learned rotations are kept in a directory, so that an interrupted run need not learn them again."""
    settings = quant.rotation
    if settings is None:
        return Rotations()
    learning = partial(learned_rotations, model, quant, settings, windows, kept) if settings.steps else None
    return rotate(model, settings, learning)


def _round_weights(
    model: nn.Module, quant: ChainQuantizer, parts: Path, out: Path, rotations: Rotations, advance: Callable[..., None]
) -> None:
    """Write the checkpoint of weights that are rounded without calibration text, or kept."""
    scheme = InferenceScheme(quant.activations, quant.kv, rotations=rotations)
    grid = quant.weight_rounding
    if grid is None:
        write_checkpoint(out, {}, scheme=scheme)
        return
    prefix, blocks = find_blocks(model)
    done: list[Path] = []
    for number, block in enumerate(blocks):
        done.append(parts / f"{prefix}.{number}")
        with weights_in_memory(block):
            layers = {f"{done[-1].name}.{name}": layer for name, layer in linears(block).items()}
            weights = {name: round_to_nearest(matrix(layer), grid.of_layer(name)) for name, layer in layers.items()}
        write_part(done[-1], weights, replace(scheme, rotations=Rotations()))
        advance(1, total=len(blocks), note=done[-1].name, unit="blocks")
    merge_parts(done, out, rotations)


def _resume(part: Path, prefix: str, block: nn.Module, hooks: InferenceRounding, rotations: Rotations) -> bool:
    """Make a block what an interrupted run made of it; return False if there is nothing of it that can be read."""
    if not part.is_dir():
        return False
    try:
        weights, scheme = read_checkpoint(part)[0], replace(InferenceScheme.read(part), rotations=rotations)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be read (%s): the block is quantized again", part, error)
        shutil.rmtree(part)
        return False

    def module_of(name: str) -> nn.Module:
        return block.get_submodule(name.removeprefix(f"{prefix}."))

    for division in scheme.divisions:
        division.apply(module_of)
    for reassembled in scheme.reassembled:
        reassembled.apply(module_of)
    for name, weight in weights.items():
        put_weight(module_of(name), weight, scheme)
    attach_block(hooks, prefix, block, scheme, scheme.input_factors(weights))
    return True
