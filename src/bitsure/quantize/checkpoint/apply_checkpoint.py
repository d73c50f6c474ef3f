"""Turning a full-precision model into the model of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
from bitsure.quantize.checkpoint.write_checkpoint import bit_pattern
from bitsure.quantize.inference.hooks import InferenceRounding, attach
from bitsure.quantize.walk.mixtures import expert_lists, separated
from bitsure.quantize.walk.targets import as_stored, block_linears, linears, matrix


@torch.no_grad()
def put_into(model: nn.Module, directory: Path) -> InferenceRounding:
    """Give a full-precision model a checkpoint's tensors, wherever accelerate keeps them, and its hooks.

    Weights become ordinary linear layers: that serves every format, and scores faster than packed kernels. Fused experts stay
    fused, unless their inputs change while the model runs.

    Returns:
        The hooks that round activations, keys and values; scoring needs them.

    Raises:
        UserError: As `load_checkpoint`, and for fused experts that accelerate keeps elsewhere.
    """
    with separated(model) as fused:
        if offloaded := [name for name, module in fused.items() if next(module.parameters()).is_meta]:
            raise UserError(
                f"model.device_map: {offloaded[0]} is offloaded, where fused experts cannot be replaced. Give model.max_memory "
                "more."
            )
        hooks = _put_into(model, load_checkpoint(directory, model))
        experts = [layer for experts in expert_lists(model).values() for layer in linears(experts).values()]
        if any(layer in hooks.transforms for layer in experts):
            fused.clear()
    return hooks


def _put_into(model: nn.Module, checkpoint: CheckpointContents) -> InferenceRounding:
    weights, others, scheme = checkpoint.weights, checkpoint.others, checkpoint.scheme
    scheme.rotations.apply(model)
    for division in scheme.divisions:
        division.apply(model.get_submodule)
    for reassembled in () if weights else scheme.reassembled:  # Quantized weights are of reassembled channels already.
        reassembled.apply(model.get_submodule)
    _untie_head(model, others)
    offloaded = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    model.load_state_dict({name: tensor for name, tensor in others.items() if name not in offloaded}, strict=False)
    for name in offloaded & set(others):
        _replace_offloaded(model, name, others[name])
    layers = block_linears(model)
    for name, weight in weights.items():
        values = scheme.layer_matrix(weight)
        if matrix(layers[name]).is_meta:
            _replace_offloaded(model, f"{name}.weight", as_stored(layers[name], values))
        else:
            matrix(layers[name]).copy_(values)
    return attach(model, scheme, scheme.input_factors(weights))


def _untie_head(model: Any, others: Mapping[str, torch.Tensor]) -> None:
    """Give the head a weight of its own if a checkpoint has another one than the embedding that the head is tied to."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or embedding is None or head.weight is not embedding.weight:
        return
    names = {module: f"{name}.weight" for name, module in model.named_modules()}
    own, tied = others.get(names[head]), others.get(names[embedding])
    if own is not None and tied is not None and not torch.equal(own.float(), tied.float()):
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def _replace_offloaded(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replace what accelerate's hook loads when it is needed.

    The parameter itself is empty, so that a copy into it does nothing. accelerate's align_module_device loads the parameter,
    but forgets a change to it.
    """
    from accelerate.utils import offload_weight

    module, _, parameter = name.rpartition(".")
    hook: Any = model.get_submodule(module)._hf_hook
    kept = hook.weights_map
    values = tensor.to(model.get_parameter(name).dtype).cpu()
    if name in kept.dataset.state_dict:
        kept.dataset.state_dict[name] = values
    else:
        offload_weight(values, name, kept.dataset.save_folder, kept.dataset.index)
    if not torch.equal(bit_pattern(kept[parameter]), bit_pattern(values)):
        raise UserError(f"{name} could not be replaced where accelerate keeps it. No score is taken from that.")
