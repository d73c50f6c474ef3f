"""Reading quantized weights from disk, and fitting them to a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.layouts import seeded_noise
from bitsure.quantize.layouts.known import layout_of, read_settings
from bitsure.quantize.walk.targets import block_linears
from bitsure.quantize.weights import Weight


def read_checkpoint(directory: Path) -> tuple[dict[str, Weight], dict[str, torch.Tensor]]:
    """Return a checkpoint's quantized weights by layer name, and its other tensors (embeddings, norms, biases).

    Raises:
        UserError: If its layout is neither ours nor a published one that is read, or if it contradicts itself.
    """
    settings, tensors = read_settings(directory), read_tensors(directory)
    return dict(layout_of(settings, directory).take(tensors, settings, directory)), tensors


def read_tensors(directory: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint's files, by name."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    return tensors


def iterate_weights(directory: Path) -> tuple[int, Iterator[tuple[str, Weight]]]:
    """Return the number of quantized weights, and an iterator of layers and weights that reads one at a time."""
    settings = read_settings(directory)
    layout = layout_of(settings, directory)
    files: dict[str, Path] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            files |= dict.fromkeys(file.keys(), path)
    names = sorted({name for key in files if (name := layout.layer_of(key)) is not None})

    def each() -> Iterator[tuple[str, Weight]]:
        for name in names:
            tensors = {}
            for key in (key for key in files if key.startswith(f"{name}.")):
                with safe_open(files[key], "pt") as file:
                    tensors[key] = file.get_tensor(key)
            yield from layout.take(tensors, settings, directory).items()

    return len(names), each()


def load_checkpoint(directory: Path, model: nn.Module) -> CheckpointContents:
    """Return what a checkpoint holds, by the names that tensors have in this model.

    A layer outside the blocks that is quantized too, and one in the blocks that is not, become others. Biases of zeros for
    layers that have none, and buffers that are computed, are left out.

    Args:
        directory: The checkpoint.
        model: The model in full precision; noise, which a checkpoint keeps as a seed, is added to its weights.

    Raises:
        UserError: If names or shapes are not this model's.
    """
    if (directory / seeded_noise.SETTINGS).is_file():
        noisy = seeded_noise.read(directory, model)
        unquantized = dict.fromkeys(
            sorted(block_linears(model).keys() - noisy.keys()), "the quantizer leaves its output as it is"
        )
        return CheckpointContents(dict(noisy), unquantized=unquantized)
    settings, (stored, tensors) = read_settings(directory), read_checkpoint(directory)
    own, layout, bits_outside = own_names(model), layout_of(settings, directory), {}
    weights = {own(f"{name}.weight").removesuffix(".weight"): weight for name, weight in stored.items()}
    others = {own(name): tensor for name, tensor in tensors.items()}
    layers, shapes = block_linears(model), {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in set(weights) - set(layers):
        outside = weights.pop(name)
        others[f"{name}.weight"], bits_outside[name] = outside.dequantize(), outside.storage_bits
    others = {name: tensor for name, tensor in others.items() if name in shapes or not _can_be_left_out(name, tensor)}
    missing = set() if settings.get("weights") == "kept" else set(layers) - set(weights)
    left_out = {name for name in missing if f"{name}.weight" in others and layout.leaves_out(name, settings)}
    if missing := missing - left_out:
        raise UserError(f"{directory} lacks layers of this model: {', '.join(sorted(missing))}.")
    if unexpected := sorted(set(others) - set(shapes)):
        raise UserError(f"{directory} holds tensors that this model does not have: {', '.join(unexpected[:5])}.")
    if differ := [name for name, tensor in others.items() if tensor.shape != shapes[name]]:
        given, expected = tuple(others[differ[0]].shape), tuple(shapes[differ[0]])
        raise UserError(f"{directory}: {differ[0]} has the shape {given}, but {expected} in this model.")
    unquantized = dict.fromkeys(sorted(left_out), "left out by the checkpoint's settings")
    return CheckpointContents(weights, others, InferenceScheme.read(directory), unquantized, bits_outside)


def own_names(model: nn.Module) -> Callable[[str], str]:
    """Return the function from tensors' names in published files to those in the model, by the rules of transformers.

    Files of older versions call some modules otherwise, and those of a model without its head lack the prefix. Rules that join
    experts tell the names of their layers, such as Mixtral's w1, w2 and w3.
    """
    rename = _renaming(model)
    modules, inside = dict(model.named_modules()), {name for name, _ in model.named_children()}

    def own(name: str) -> str:
        if name.rpartition(".")[0] in modules:
            return name
        renamed = rename(name)
        return renamed if renamed.split(".")[0] in inside else f"{model.base_model_prefix}.{renamed}"

    return own


def _renaming(model: Any) -> Callable[[str], str]:
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, apply_renamings
    except ImportError:  # transformers 4, which auto-gptq needs, names modules as the files of its time do.
        return str
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    layers = [layer for rule in converters for layer in _expert_layers(rule.source_patterns, rule.target_patterns)]

    def rename(name: str) -> str:
        renamed: str = apply_renamings(name, renamings)
        for pattern, layer in layers:
            renamed = pattern.sub(layer, renamed)
        return renamed

    return rename


def _expert_layers(sources: list[str], targets: list[str]) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield for a rule that joins experts' layers what each of them is called in files, and its name in separate experts."""
    place, _, joined = targets[0].rpartition(".")
    own = ["gate_proj", "up_proj"] if joined == "gate_up_proj" else [joined]
    if len(targets) == 1 and place.endswith("experts") and len(sources) == len(own):
        for source, layer in zip(sources, own, strict=True):
            if "*" in source:
                pattern = re.escape(source.removesuffix(".weight")).replace(r"\*", r"(\d+)")
                yield re.compile(rf"{pattern}(?=\.)"), rf"{place}.\1.{layer}"


def _can_be_left_out(name: str, tensor: torch.Tensor) -> bool:
    """Return whether this is a tensor that older libraries save and a model can do without."""
    return name.endswith((".rotary_emb.inv_freq", ".attn.bias", ".masked_bias")) or (
        name.endswith(".bias") and not tensor.any().item()
    )
