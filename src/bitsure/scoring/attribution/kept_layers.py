"""The recipe that follows: the layers that lose most, in more bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.quantizer import Quantizer
from bitsure.quantize.walk.targets import block_linears, matrix
from bitsure.results.attribution import MeasuredKeptLayers, alone
from bitsure.scoring.attribution.model_pair import ModelPair

LAYERS, BITS = 3, 8


@torch.no_grad()
def keep_layers(
    pair: ModelPair, quantizer: Quantizer, contents: CheckpointContents, divergences: Mapping[str, Sequence[float]]
) -> MeasuredKeptLayers | None:
    """Give the quantized model the LAYERS layers that lose most alone in BITS bits, rounded to nearest.

    Args:
        pair: The models; the quantized one is changed.
        quantizer: What quantized it.
        contents: Its weights.
        divergences: Model → the KL divergence of each window.

    Returns:
        The layers and the bits; None for a quantizer whose layers cannot have bits of their own, or have as many.
    """
    finer = quantizer.with_bits(BITS)
    if finer is None:
        return None
    parts = sorted(pair.layers, key=lambda layer: sum(divergences[alone(layer.kind, layer.name)]), reverse=True)[:LAYERS]
    layers = [name for part in parts for name in pair.names_of_layers(part)]
    full, quantized = block_linears(pair.full), block_linears(pair.quantized)
    rounded = {name: round_to_nearest(matrix(full[name]).cpu(), finer) for name in layers}
    bits = {name: weight.storage_bits for name, weight in contents.weights.items()}
    more = bits | {name: weight.storage_bits for name, weight in rounded.items()}
    if sum(more.values()) <= sum(bits.values()):
        return None
    for name, weight in rounded.items():
        matrix(quantized[name]).copy_(weight.dequantize())
    numbers = sum(matrix(full[name]).numel() for name in more)
    recipe = {name: int(weight.settings["bits"]) for name, weight in contents.weights.items()} | dict.fromkeys(layers, BITS)
    names = [part.name for part in parts]
    return MeasuredKeptLayers(layers=names, bits=BITS, recipe=recipe, bits_per_weight=sum(more.values()) / numbers)
