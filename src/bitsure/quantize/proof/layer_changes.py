"""What quantization changed in the weight of each layer, as it was read back from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bitsure.models.offloading import weights_in_memory
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.walk.targets import as_stored, block_linears, find_blocks, linears, matrix


@dataclass(frozen=True)
class LayerChange:
    """What quantization changed in a layer's weight."""

    numbers: int
    """Weights of the layer in full precision."""
    squares: tuple[float, float]
    """‖Ŵ − W‖² and ‖W‖²."""
    bits: float = 0.0
    """Bits that the quantized weight takes."""
    group_sizes: Sequence[int] = ()
    """The numbers of weights that share a scale."""
    is_quantized: bool = False
    """Whether the checkpoint has a quantized weight of it; what follows is of that."""
    is_finite: bool = True
    has_shape: bool = True
    """Whether it has the layer's shape."""
    is_unchanged: bool = False
    is_proved: bool = True
    """Whether it is known to be quantized even if it is unchanged."""
    was_zero: bool = False
    """Whether all weights were zero and are no longer."""


def layer_changes(model: nn.Module, checkpoint: CheckpointContents) -> dict[str, LayerChange]:
    """Return what changed in each layer of the blocks, one block's weights in memory at a time."""
    prefix, blocks = find_blocks(model)
    changes: dict[str, LayerChange] = {}
    for number, block in enumerate(blocks):
        with weights_in_memory(block):
            for inner, layer in linears(block).items():
                name = f"{prefix}.{number}.{inner}"
                changes[name] = _layer_change(name, layer, checkpoint)
    return {name: changes[name] for name in block_linears(model)}


def _layer_change(name: str, layer: nn.Module, checkpoint: CheckpointContents) -> LayerChange:
    original = reassembled(matrix(layer), name, checkpoint.scheme)
    if name not in checkpoint.weights:
        kept = left_out(name, layer, checkpoint) if name in checkpoint.unquantized else None
        return LayerChange(matrix(layer).numel(), _squares(original, kept))
    weight = checkpoint.weights[name]
    values = weight.dequantize()
    has_shape = values.shape == original.shape
    is_unchanged = has_shape and torch.equal(values, original.float())
    return LayerChange(
        numbers=matrix(layer).numel(),
        squares=_squares(original, values) if has_shape else (0.0, 0.0),
        bits=weight.storage_bits,
        group_sizes=weight.group_sizes(),
        is_quantized=True,
        is_finite=bool(values.isfinite().all()),
        has_shape=has_shape,
        is_unchanged=is_unchanged,
        is_proved=not is_unchanged or _is_constant(original) or weight.is_coded,
        was_zero=has_shape and not is_unchanged and not original.any(),
    )


def reassembled(original: torch.Tensor, layer: str, scheme: InferenceScheme) -> torch.Tensor:
    """Return the matrix that a layer's quantized weight stands for."""
    reassembly = scheme.reassembly_of(layer)
    return original if reassembly is None else reassembly.weight(original)


def left_out(name: str, layer: nn.Module, checkpoint: CheckpointContents) -> torch.Tensor:
    """Return the matrix of a layer that is not quantized; a checkpoint may hold it in another type."""
    stored = checkpoint.others.get(f"{name}.weight")
    return (matrix(layer) if stored is None else as_stored(layer, stored)).float()


def _is_constant(matrix: torch.Tensor) -> bool:
    return bool((matrix == matrix[0, 0]).all())


def _squares(original: torch.Tensor, quantized: torch.Tensor | None) -> tuple[float, float]:
    """Return ‖Ŵ − W‖² and ‖W‖²; a layer that is not given another weight keeps its own."""
    change = 0.0 if quantized is None else (quantized - original.float()).square().sum().item()
    return change, original.float().square().sum().item()
