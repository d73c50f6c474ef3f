"""Which layers a quantizer must change: every linear layer inside the model's blocks."""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from bitsure.base.errors import UserError

LINEAR = (nn.Linear, Conv1D)  # GPT-2's Conv1D is a linear layer that keeps its weight the other way round


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of the model's repeated blocks and its name. Raises UserError if there is none, or more than one."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and any(isinstance(inner, LINEAR) for inner in module.modules())
    }
    outermost = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    if len(outermost) != 1:
        raise UserError(
            f"The model has {len(outermost)} lists of blocks with linear layers ({', '.join(outermost) or 'none'}), "
            f"but a decoder has one: nothing here can be quantized."
        )
    return outermost[0], found[outermost[0]]


def linears(module: nn.Module) -> dict[str, nn.Module]:
    """The linear layers inside a module, by their names there."""
    return {name: inner for name, inner in module.named_modules() if isinstance(inner, LINEAR)}


def block_linears(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers inside the model's blocks, by their names."""
    prefix, blocks = find_blocks(model)
    return {f"{prefix}.{name}": layer for name, layer in linears(blocks).items()}


def matrix(layer: nn.Module) -> torch.Tensor:
    """A linear layer's weight as (out, in), a view."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight


def as_stored(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """A matrix (out, in) as the layer keeps it."""
    return weight.T.contiguous() if isinstance(layer, Conv1D) else weight


def unknown_weights(model: nn.Module) -> list[str]:
    """Weights of two or more dimensions inside the blocks that no quantizer here touches (fused experts, convolutions)."""
    prefix, blocks = find_blocks(model)
    known = {f"{name}.weight" for name in block_linears(model)}
    inside = [(f"{prefix}.{name}", parameter) for name, parameter in blocks.named_parameters()]
    return [name for name, parameter in inside if parameter.ndim >= 2 and name not in known]


def skipped_modules(model: nn.Module) -> dict[str, str]:
    """The other modules that hold a weight matrix, and why they keep it."""
    chosen = block_linears(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    skipped = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if name in chosen or weight is None or weight.ndim < 2:
            continue
        if module is head:
            tied = embedding is not None and head.weight is embedding.weight
            skipped[name] = "output head" + (", tied to the embedding" if tied else "")
        elif isinstance(module, nn.Embedding):
            skipped[name] = "embedding"
        else:
            skipped[name] = "outside the blocks"
    return skipped
