"""The layers that a quantizer must change: every linear layer inside the model's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from bitsure.base.errors import UserError
from bitsure.quantize.refusals import not_quantizable
from bitsure.quantize.walk.mixtures import gates, in_experts

NAMED = 5  # layers in an error
MOST_KEPT = 0.1  # of the blocks' parameters, in weights that are no linear layers and keep full precision
CROSS_ATTENTION = "named as what reads an encoder, which a causal language model has none of"
NEVER_RUN = {  # parts of names → why the linear layers there are taken as never run, so that no input could be measured
    "dt_proj": "named as Mamba's, whose own code reads the weight and does not run the layer",
    **dict.fromkeys(("encoder_attn", "cross_attn", "crossattention"), CROSS_ATTENTION),
}
LINEAR: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)  # GPT-2's Conv1D is a linear layer with a transposed weight


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the name of the list of the model's blocks, and the list; of several the outermost one of its text decoder.

    Raises:
        UserError: If there is none, or more than one.
    """
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and any(not is_linear(block) and linears(block) for block in module)
    }
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    causal: Any = model
    if len(outermost) > 1 and hasattr(model, "get_decoder"):
        decoder = set(causal.get_decoder().modules())
        inside = [name for name in outermost if lists[name] in decoder] or outermost
        outermost = [name for name in inside if name.count(".") == min(other.count(".") for other in inside)]
    if len(outermost) != 1:
        raise not_quantizable(
            f"The model has {len(outermost)} lists of blocks with linear layers ({', '.join(outermost) or 'none'}), "
            "but a decoder has one: nothing here can be quantized."
        )
    return outermost[0], lists[outermost[0]]


def is_linear(module: nn.Module) -> bool:
    """Return whether a module is a linear layer."""
    return isinstance(module, LINEAR)


def parameter(module: nn.Module, name: str) -> torch.Tensor:
    """Return a module's tensor; nn.Module itself types its attributes as tensors or modules."""
    tensor = getattr(module, name)
    assert isinstance(tensor, torch.Tensor), f"{type(module).__name__}.{name} is not a tensor"
    return tensor


def linears(module: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers inside a module that are quantized, by their names there.

    Gates of mixtures of experts are left out, and layers that are never run.
    """
    kept = gates(module)
    return {
        name: inner
        for name, inner in module.named_modules()
        if is_linear(inner) and name not in kept and _why_never_run(name) is None
    }


def never_run(module: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers inside a module whose names say that they are never run, by name."""
    return {name: inner for name, inner in module.named_modules() if is_linear(inner) and _why_never_run(name)}


def _why_never_run(name: str) -> str | None:
    return next((NEVER_RUN[part] for part in name.split(".") if part in NEVER_RUN), None)


def not_reached(layers: Sequence[str]) -> UserError:
    """Return the error for linear layers that a model does not run on text, so that their inputs are not known."""
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return not_quantizable(
        f"No token of the calibration text reaches {', '.join(layers[:NAMED])}{more}: the model does not run these layers, so "
        "that nothing tells what their rounding changes."
    )


def dense_linears(module: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers inside a module that every token reaches: those of `linears` outside of lists of experts."""
    inside = in_experts(module)
    return {name: layer for name, layer in linears(module).items() if not name.startswith(inside)}


def block_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers inside the model's blocks, by their names."""
    prefix, blocks = find_blocks(model)
    return {f"{prefix}.{name}": layer for name, layer in linears(blocks).items()}


def matrix(layer: nn.Module) -> torch.Tensor:
    """Return a linear layer's weight as (out, in), a view."""
    weight = parameter(layer, "weight")
    return weight.T if isinstance(layer, Conv1D) else weight


def as_stored(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """Return a matrix (out, in) as the layer stores it."""
    return weight.T.contiguous() if isinstance(layer, Conv1D) else weight


def unknown_weights(model: nn.Module) -> list[str]:
    """Return the weights of two or more dimensions in the blocks that no quantizer changes, where these are many.

    Short convolutions and the like, up to MOST_KEPT of the blocks' parameters, are kept in full precision, as everybody does.
    """
    prefix, blocks = find_blocks(model)
    known = {f"{name}.weight" for name in block_linears(model)} | {f"{prefix}.{name}.weight" for name in gates(blocks)}
    inside = {f"{prefix}.{name}": parameter for name, parameter in blocks.named_parameters() if _why_never_run(name) is None}
    unknown = {name: parameter.numel() for name, parameter in inside.items() if parameter.ndim >= 2 and name not in known}
    every = sum(parameter.numel() for parameter in inside.values())
    return list(unknown) if sum(unknown.values()) > MOST_KEPT * every else []


def skipped_modules(model: nn.Module) -> dict[str, str]:
    """Return the other modules that hold a weight matrix → why they keep it."""
    chosen, gate_modules, prefix = block_linears(model), gates(model), find_blocks(model)[0]
    causal: Any = model
    head, embedding = causal.get_output_embeddings(), causal.get_input_embeddings()
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
        elif name in gate_modules:
            skipped[name] = "gate of a mixture of experts, kept so that it decides as precisely as before"
        elif name.startswith(f"{prefix}."):
            skipped[name] = _why_never_run(name) or "no linear layer"
        else:
            skipped[name] = "outside the blocks"
    return skipped
