"""Writing quantized weights to disk, in a form that is read back bit for bit."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path
from bitsure.quantize.checkpoint.joined_files import join_files
from bitsure.quantize.checkpoint.read_checkpoint import open_tensors, read_checkpoint, read_tensors
from bitsure.quantize.inference.rotations import Rotations
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.layouts.known import layout_of, read_settings
from bitsure.quantize.layouts.layout import layer_settings
from bitsure.quantize.weights import Weight

WEIGHTS = "model.safetensors"
LAYER_SETTINGS = ("bits",)  # that layers of one checkpoint may differ in


def write_checkpoint(
    directory: Path,
    weights: Mapping[str, Weight],
    others: Mapping[str, torch.Tensor] | None = None,
    scheme: InferenceScheme | None = None,
) -> None:
    """Write a checkpoint and read it back.

    Integers that GPTQ's layout has room for are written in it (`gptq_v2`: zero points as they are), so that other programs
    read them. Any other format writes its own tensors.

    Args:
        directory: An empty directory.
        weights: Layer name → quantized weight; empty if the model keeps its weights.
        others: Tensors that are not a layer's weight but change too, as in a cast.
        scheme: What the model does while it runs.

    Raises:
        UserError: If anything comes back from disk other than it was written.
    """
    tensors = dict(others or {})
    for name, weight in weights.items():
        for part, tensor in weight.tensors().items():
            tensors[f"{name}.{part}"] = tensor.clone(memory_format=torch.contiguous_format)
    save_file(tensors, directory / WEIGHTS)
    _write_settings(directory, _settings(weights))
    (scheme or InferenceScheme()).write(directory)
    back, _ = read_checkpoint(directory)
    _same_or_raise(_fields_by_name(weights), _fields_by_name(back))


def write_part(directory: Path, weights: Mapping[str, Weight], scheme: InferenceScheme) -> None:
    """Write the checkpoint of one block, whole or not at all; one that another process wrote meanwhile is kept."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_path(directory) as temporary:
            temporary.mkdir()
            write_checkpoint(temporary, weights, scheme=scheme)
    except OSError:
        if not directory.is_dir():
            raise


def merge_parts(parts: Sequence[Path], directory: Path, rotations: Rotations) -> None:
    """Write one checkpoint of those of its blocks, and the rotations that the model had before; one block is in memory."""
    of_layers: dict[str, dict[str, Any]] = {}
    settings = []
    for part in parts:
        own = read_settings(part)
        layers = {layer for key in open_tensors(part) if (layer := layout_of(own, part).layer_of(key))}
        of_layers |= {layer: layer_settings(layer, own) for layer in sorted(layers)}
        settings.append(own)
    beyond_gptq = [each for each in settings if each["checkpoint_format"] != "gptq_v2"]
    join_files([part / WEIGHTS for part in parts], directory / WEIGHTS)
    _write_settings(directory, _with_layers((beyond_gptq or settings)[0], of_layers))
    InferenceScheme.merge([InferenceScheme.read(part) for part in parts], rotations).write(directory)
    with safe_open(directory / WEIGHTS, "pt", backend="pread") as merged:
        for part in parts:
            written = read_tensors(part)
            _same_or_raise(written, {name: merged.get_tensor(name) for name in written})


def _write_settings(directory: Path, settings: Mapping[str, Any]) -> None:
    (directory / "quantize_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _settings(weights: Mapping[str, Weight]) -> dict[str, Any]:
    """Return quantize_config.json: of settings that differ between layers the first layer's, and the others' by layer."""
    fits_gptq = bool(weights) and all(weight.fits_gptq for weight in weights.values())
    method, stored = ("gptq", "gptq_v2") if fits_gptq else ("bitsure", "bitsure")
    settings: dict[str, Any] = {"quant_method": method, "bits": None, "checkpoint_format": stored}
    for weight in reversed(list(weights.values())):
        settings |= weight.settings
    if not weights:
        return settings | {"weights": "kept"}
    return _with_layers(settings, {name: weight.settings for name, weight in weights.items()})


def _with_layers(settings: Mapping[str, Any], of_layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return settings with those in which layers differ, by gptqmodel's `dynamic`."""
    dynamic = {
        f"+:^{re.escape(layer)}$": changed
        for layer, own in of_layers.items()
        if (changed := {key: own[key] for key in own if key in LAYER_SETTINGS and own[key] != settings.get(key)})
    }
    common = {key: value for key, value in settings.items() if key != "dynamic"}
    return common | ({"dynamic": dynamic} if dynamic else {})


def _same_or_raise(written: Mapping[str, object], back: Mapping[str, object]) -> None:
    """Raise UserError naming what came back from disk other than it was written, bit for bit."""
    differ = [name for name, value in written.items() if name not in back or not _same(value, back[name])]
    if differ:
        raise UserError(f"{', '.join(differ[:5])} came back from disk otherwise than written. No score is taken from that.")


def _same(written: object, back: object) -> bool:
    if isinstance(written, torch.Tensor):
        return isinstance(back, torch.Tensor) and torch.equal(bit_pattern(written), bit_pattern(back))
    return written == back


def _fields_by_name(weights: Mapping[str, Weight]) -> dict[str, object]:
    return {f"{name}: {field}": value for name, weight in weights.items() for field, value in _fields(weight)}


def _fields(part: object) -> Iterator[tuple[str, object]]:
    """Yield what a weight is made of, also inside parts that are dataclasses themselves."""
    for key, value in vars(part).items():
        if dataclasses.is_dataclass(value):
            yield from ((f"{key}.{inner}", field) for inner, field in _fields(value))
        else:
            yield key, value


def bit_pattern(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's bytes, which are equal where both are NaN, too."""
    return tensor.flatten().clone().view(torch.uint8)
