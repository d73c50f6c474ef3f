"""Write quantized models as other programs load them: in a published layout, or with ordinary weights."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bitsure.base.errors import UserError
from bitsure.models.facts import own_dtype
from bitsure.models.locate import Source
from bitsure.models.weight_files import weight_files

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bitsure.quantize.weights import IntegerWeight

EXPORTABLE = (
    "Weights can be exported that are integers with a scale a group or row (gptq2 … gptq8, rtn2 … rtn8, clip3, w2 … w8), "
    "in a run that rounds no activations, keys or values"
)


class NotExportable(UserError):
    """Quantized weights that other programs have no room for.

    Args:
        reason: Why, in whole sentences.
        way_out: What `bitsure export` can do in place of it.
    """

    def __init__(self, reason: str, way_out: str = "") -> None:
        super().__init__(f"{reason} {way_out}".rstrip())
        self.reason = reason


def publish(source: Source, checkpoint: Path, out: Path, label: str, format_name: str | None = None) -> dict[str, Any]:
    """Write config, tokenizer and quantized weights as other programs load them.

    Args:
        source: The full-precision model.
        checkpoint: Its quantized weights.
        out: An empty directory.
        label: What to call the weights in messages.
        format_name: The layout, `gptq` or `compressed-tensors`; None for the first that has room for the weights.

    Returns:
        The `quantization_config`.

    Raises:
        NotExportable: If no layout has room for the weights.
        UserError: If one comes back from disk otherwise than it was written.
    """
    from safetensors.torch import save_file

    from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
    from bitsure.quantize.layouts.known import layout_of
    from bitsure.quantize.walk.mixtures import separate_experts
    from bitsure.quantize.weights.integer import GPTQ_TENSORS

    model, tokenizer = _full_precision(source, own_dtype(source.settings, source.path))
    separate_experts(model)  # layouts name each expert's layers
    contents = load_checkpoint(checkpoint, model)
    _quantize(model, checkpoint, label)
    weights = {name: cast("IntegerWeight", weight) for name, weight in contents.weights.items() if weight.fits_gptq}
    if missing := contents.weights.keys() - weights.keys():
        first = min(missing)
        needs = ", ".join(sorted(contents.weights[first].tensors().keys() - GPTQ_TENSORS))
        raise NotExportable(f"{label} needs {needs} in {first}, which no layout has.", f"{EXPORTABLE}.")
    tensors, settings = _lay_out(model, weights, label, format_name)
    others = {name: tensor for name, tensor in _without_ties(model).items() if name.removesuffix(".weight") not in weights}
    published = _published_names(source, model, weights) if layout_of(settings, out).published_names else {}
    named = {_published(name, published): tensor for name, tensor in (others | tensors).items()}
    save_file(named, out / "model.safetensors", metadata={"format": "pt"})
    model.config.quantization_config = settings
    model.config.save_pretrained(out)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.copymode(out / "config.json", out / "model.safetensors")  # safetensors lets nobody else read its files
    _check_read_back(out, {_published(name, published): weight for name, weight in weights.items()})
    return settings


def write_unpacked(source: Source, checkpoint: Path, out: Path, label: str, dtype: str) -> None:
    """Write a quantized model with ordinary weights of a type, which every program loads that loads full precision.

    Args and Raises: as for `publish`.
    """
    model, tokenizer = _full_precision(source, dtype)
    _quantize(model, checkpoint, label)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _full_precision(source: Source, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the full-precision model in main memory, its weights of a type, and its tokenizer."""
    from bitsure.models.load import load_model

    source.check_content()
    return load_model(source.path, dtype, "cpu", source.settings)


def _quantize(model: nn.Module, checkpoint: Path, label: str) -> None:
    """Give a full-precision model a checkpoint's weights. Raises NotExportable if the checkpoint changes more than weights."""
    from bitsure.quantize.checkpoint.apply_checkpoint import put_into
    from bitsure.quantize.inference.scheme import InferenceScheme

    scheme = InferenceScheme.read(checkpoint)
    if scheme.activations or scheme.kv or scheme.divisions or scheme.reassembled or scheme.rotations.inputs:
        raise NotExportable(f"{label} changes layers' inputs while the model runs, which no layout can say.", f"{EXPORTABLE}.")
    own = model.state_dict().keys()
    put_into(model, checkpoint)
    if added := sorted(model.state_dict().keys() - own):
        raise NotExportable(
            f"{label}: rotating the model gave it {added[0]}, for which other programs' {type(model).__name__} has no place."
        )


def _published_names(source: Source, model: nn.Module, layers: Collection[str]) -> dict[str, str]:
    """Return module → its name in the files of a mixture of experts; other models' modules keep their names.

    Raises:
        NotExportable: If its files have one tensor for all experts, so that their layers have no names there.
    """
    from safetensors import safe_open

    from bitsure.quantize.checkpoint.read_checkpoint import own_names
    from bitsure.quantize.walk.mixtures import expert_lists

    published: dict[str, str] = {}
    if not expert_lists(model):
        return published
    own = own_names(model)
    for path in weight_files(source.path):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                published |= {own(key).rpartition(".")[0]: key.rpartition(".")[0] for key in file.keys()}  # noqa: SIM118 - not a dict
    if missing := sorted(name for name in layers if name not in published):
        raise NotExportable(
            f"{source.name} has one tensor for all experts in its files, so that transformers loads no quantized {missing[0]}.",
            "Export it with --format gptq, which GPTQModel loads.",
        )
    return published


def _published(name: str, published: Mapping[str, str]) -> str:
    """Return the published name of a module, or of a tensor of it."""
    module, _, tensor = name.rpartition(".")
    return published.get(name) or (f"{published[module]}.{tensor}" if module in published else name)


def _lay_out(
    model: nn.Module, weights: Mapping[str, IntegerWeight], label: str, format_name: str | None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the weights in the layout that was asked for, or in the first that has room, and its settings."""
    from bitsure.quantize.layouts.known import EXPORTED
    from bitsure.quantize.walk.targets import is_linear

    unquantized = [name for name, module in model.named_modules() if is_linear(module) and name not in weights]
    other = next((name for name in weights if type(model.get_submodule(name)).__name__ != "Linear"), None)
    reasons = []
    for layout in EXPORTED:
        if format_name in (None, layout.quant_method):
            try:
                if layout.only_linear and other:
                    raise UserError(f"{other} is a {type(model.get_submodule(other)).__name__}, into which it is not loaded")
                return layout.put(weights, unquantized)
            except UserError as error:
                reasons.append(f"{layout.quant_method}: {error}.")
    others = [layout.quant_method for layout in EXPORTED if format_name not in (None, layout.quant_method)]
    way_out = f"Without --format, or with --format {others[0]}, another layout is tried." if others else ""
    raise NotExportable(f"{label} has weights that do not fit. {' '.join(reasons)}", way_out)


def _without_ties(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's tensors, of those that are one tensor the first alone: loading ties them again."""
    tensors: dict[Hashable, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        # Empty tensors have no memory to share, and a view of another shape is a tensor of its own.
        place = (tensor.data_ptr(), tensor.shape) if tensor.numel() else name
        tensors.setdefault(place, (name, tensor))
    return {name: tensor.contiguous() for name, tensor in tensors.values()}


def _check_read_back(out: Path, weights: Mapping[str, IntegerWeight]) -> None:
    """Raise UserError if a weight comes back from disk other than it was scored."""
    import torch

    from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint

    back, _ = read_checkpoint(out)
    differ = [
        name
        for name, weight in weights.items()
        if name not in back or not torch.equal(back[name].dequantize(), weight.dequantize())
    ]
    if differ:
        raise UserError(f"{', '.join(differ[:5])} came back from disk otherwise than written. Nothing is exported.")
