"""Measuring how far the codes of a checkpoint's weights, and of a model's activations, compress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.compress.codes import CodedTensor, codes_of_activations, codes_of_weight
from bitsure.compress.summary import summarize
from bitsure.config.number_formats import Activations
from bitsure.results.compressibility import Codes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.inference.input_transform import InputTransform
    from bitsure.quantize.walk.blocks import Feed

UNROUNDED = Activations(8, symmetric=True)  # the format for activations that a quantizer leaves as they are


def measure_weights(checkpoint: Path, codes: int, seed: int) -> Codes | None:
    """Return the entropies and coded sizes of a checkpoint's weights; None if none of them is made of codes.

    Args:
        checkpoint: The checkpoint's directory; its weights are read one at a time.
        codes: How many codes are measured at most: of a larger model, rows of each layer are drawn.
        seed: The seed of that draw.
    """
    from bitsure.quantize.checkpoint.read_checkpoint import iterate_weights

    total, weights = iterate_weights(checkpoint)
    coded = ((name, codes_of_weight(weight, codes // max(1, total), seed)) for name, weight in weights)
    return summarize((name, tensor) for name, tensor in coded if tensor is not None)


def measure_activations(
    model: nn.Module, transforms: Mapping[nn.Module, InputTransform], windows: torch.Tensor, codes: int, seed: int
) -> Codes | None:
    """Return the entropies and coded sizes of the inputs of the linear layers in a model's blocks.

    Layers that read the same input in the same format count once, under the name of the first.

    Args:
        model: The quantized model.
        transforms: Layer → what its input becomes while the model runs. The codes are of that format, computed from what the
            input is before it is rounded; a layer without one is measured as int8 with one scale a token.
        windows: Token ids, shape (n, seqlen).
        codes: How many codes are measured at most.
        seed: The seed of the draw of tokens.
    """
    from bitsure.quantize.inference.input_transform import InputTransform
    from bitsure.quantize.walk.blocks import walk
    from bitsure.quantize.walk.targets import block_linears, linears

    most = codes // len(block_linears(model))

    def coded(layer: nn.Module, states: torch.Tensor) -> CodedTensor:
        transform = transforms.get(layer, InputTransform())
        numbers = transform.numbers or UNROUNDED
        return codes_of_activations(transform.before_rounding(states), numbers, transform.static_range, most, seed)

    return summarize(
        (f"{prefix}.{name}", coded(layers[name], states))
        for prefix, block, feed in walk(model, windows)
        for layers in [linears(block)]
        for name, states in _inputs(layers, transforms, feed).items()
    )


def _inputs(
    layers: Mapping[str, nn.Module], transforms: Mapping[nn.Module, InputTransform], feed: Feed
) -> dict[str, torch.Tensor]:
    """Return what a block's layers are given, before it is transformed, (tokens, width) each."""
    import torch

    kept: dict[str, list[torch.Tensor]] = {}
    seen: list[tuple[torch.Tensor, InputTransform | None]] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            x, transform = inputs[0], transforms.get(layer)
            if not any(x is states and transform is other for states, other in seen):
                seen.append((x, transform))
                kept.setdefault(name, []).append(x)

        return hook

    handles = [layer.register_forward_pre_hook(watch(name), prepend=True) for name, layer in layers.items()]
    try:
        feed()
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat([states.flatten(0, -2) for states in batches]) for name, batches in kept.items()}
