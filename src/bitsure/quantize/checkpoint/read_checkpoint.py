"""Reading quantized weights from disk, and fitting them to a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
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
    return {name: file.get_tensor(name) for name, file in open_tensors(directory).items()}


def open_tensors(directory: Path) -> dict[str, Any]:
    """Return the open file of each tensor of a checkpoint, by the tensor's name; to open one parses all of its header."""
    files: dict[str, Any] = {}
    for path in sorted(directory.glob("*.safetensors")):
        file: Any = safe_open(path, "pt", backend="pread")
        files |= dict.fromkeys(file.keys(), file)
    return files


class StoredWeights(Mapping[str, Weight]):
    """The quantized weights of a checkpoint, each of which is read whenever it is asked for.

    Args:
        directory: The checkpoint.
        own: Returns a layer's name in the model, given that in the files.

    Raises:
        UserError: As `read_checkpoint`.
    """

    def __init__(self, directory: Path, own: Callable[[str], str] = str) -> None:
        self._directory, self._settings = directory, read_settings(directory)
        self._layout, self._files = layout_of(self._settings, directory), open_tensors(directory)
        layers = (self._layout.layer_of(key) for key in self._files)
        self._keys: dict[str, list[str]] = {layer: [] for layer in layers if layer is not None}
        for key in self._files:
            if layer := _layer_around(key, self._keys):
                self._keys[layer].append(key)
        self._stored = {own(f"{layer}.weight").removesuffix(".weight"): layer for layer in self._keys}

    def __getitem__(self, name: str) -> Weight:
        return self._take(self._stored[name])[0]

    def __contains__(self, name: object) -> bool:
        return name in self._stored  # The inherited one would read the weight.

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def leave_out(self, names: Iterable[str]) -> None:
        """Have layers no longer, by their names in the model."""
        for name in names:
            del self._stored[name]

    def others(self) -> dict[str, torch.Tensor]:
        """Return the tensors that are no part of a quantized weight, by their names in the files; every weight is read."""
        of_layers = {key for keys in self._keys.values() for key in keys}
        others = self._read(key for key in self._files if key not in of_layers)
        self._layout.take(others, self._settings, self._directory)  # removes what stands for activations, keys and values
        for layer in self._keys:
            others |= self._take(layer)[1]
        return others

    def _take(self, layer: str) -> tuple[Weight, dict[str, torch.Tensor]]:
        """Return a layer's weight, and the tensors that stand beside it."""
        tensors = self._read(self._keys[layer])
        weights = self._layout.take(tensors, self._settings, self._directory)
        return weights[layer], tensors

    def _read(self, keys: Iterable[str]) -> dict[str, torch.Tensor]:
        return {key: self._files[key].get_tensor(key) for key in keys}


def _layer_around(key: str, layers: Container[str]) -> str:
    """Return the innermost of these layers that a tensor's name lies in; empty: none."""
    while (key := key.rpartition(".")[0]) and key not in layers:
        pass
    return key


def iterate_weights(directory: Path) -> tuple[int, Iterator[tuple[str, Weight]]]:
    """Return the number of quantized weights, and an iterator of layers and weights that reads one at a time."""
    weights = StoredWeights(directory)
    return len(weights), ((name, weights[name]) for name in sorted(weights))


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
    own, settings, bits_outside = own_names(model), read_settings(directory), {}
    weights, layout = StoredWeights(directory, own), layout_of(settings, directory)
    others = {own(name): tensor for name, tensor in weights.others().items()}
    layers, shapes = block_linears(model), {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in [name for name in weights if name not in layers]:
        outside = weights[name]
        others[f"{name}.weight"], bits_outside[name] = outside.dequantize(), outside.storage_bits
    weights.leave_out(bits_outside)
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
