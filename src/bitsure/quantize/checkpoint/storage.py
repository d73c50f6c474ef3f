"""Quantized weights on disk: written, read back, and put into a model.

Integer weights go into the packed layout of GPTQ checkpoints, with what that layout has no room for beside it. Unpacking
once into ordinary linear layers serves every width, where the packed kernels serve some, and it is faster to score with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path
from bitsure.quantize.inference.hooks import InferenceRounding, attach
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.layouts import bitsandbytes, layouts
from bitsure.quantize.native import noise
from bitsure.quantize.walk.targets import as_stored, block_linears, matrix
from bitsure.quantize.weights.formats import CodebookWeight, DenseWeight, ElementWeight, IntegerWeight, Weight
from bitsure.quantize.weights.packing import pack

try:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, apply_renamings
except ImportError:  # transformers 4, which auto-gptq needs, calls modules as the files of its time do

    def get_model_conversion_mapping(model):
        return []

    def apply_renamings(name, renamings):
        return name


PACKED = ("qweight", "qzeros", "scales", "g_idx")


def write(
    directory: Path,
    weights: dict[str, Weight],
    others: dict[str, torch.Tensor] | None = None,
    scheme: InferenceScheme | None = None,
) -> None:
    """Write quantized weights by layer name, tensors that are not a layer's weight (a cast changes those too), and what the
    model does at run time.

    Integers alone make the `gptq_v2` layout (zero points as they are); `bitsure` is that with input scales, padding, one
    scale a tensor, or zero points that are not whole; small floating-point formats; dense matrices, and codebooks as
    bitsandbytes lays them out; or no weights at all, where the model keeps its own.
    """
    tensors = dict(others or {})
    for name, weight in weights.items():
        tensors |= {
            f"{name}.{part}": tensor.clone(memory_format=torch.contiguous_format) for part, tensor in _tensors(weight).items()
        }
    _write(directory, tensors, _settings(weights))
    (scheme or InferenceScheme()).write(directory)
    back, _ = read(directory)
    _same_or_raise(_fields(weights), _fields(back))


def _settings(weights: dict[str, Weight]) -> dict:
    integers = [weight for weight in weights.values() if isinstance(weight, IntegerWeight)]
    elements = [weight for weight in weights.values() if isinstance(weight, ElementWeight)]
    plain = weights and len(integers) == len(weights) and not any(set(_tensors(w)) - set(PACKED) for w in integers)
    method, layout = ("gptq", "gptq_v2") if plain else ("bitsure", "bitsure")
    settings = {"quant_method": method, "bits": integers[0].bits if integers else None, "checkpoint_format": layout}
    return settings | ({"elements": elements[0].format} if elements else {}) | ({} if weights else {"weights": "kept"})


def _same_or_raise(written: dict[str, torch.Tensor], back: dict[str, torch.Tensor]) -> None:
    """Raise UserError naming what did not come back from disk as it was made, bit for bit."""
    differ = [name for name, one in written.items() if name not in back or not torch.equal(_bits(one), _bits(back[name]))]
    if differ:
        raise UserError(f"{', '.join(differ[:5])} came back from disk otherwise than written. No score is taken from that.")


def _fields(weights: dict[str, Weight]) -> dict[str, torch.Tensor]:
    """What weights are made of, by layer and field."""
    fields = {f"{name}: {key}": value for name, weight in weights.items() for key, value in vars(weight).items()}
    return {name: value for name, value in fields.items() if isinstance(value, torch.Tensor)}


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten().clone().view(torch.uint8)  # of which NaN is equal to NaN


def write_part(directory: Path, weights: dict[str, Weight], scheme: InferenceScheme) -> None:
    """The same, there whole or not at all."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_path(directory) as temporary:
            temporary.mkdir()
            write(temporary, weights, scheme=scheme)
    except OSError:
        if not directory.is_dir():  # else another process made the same part meanwhile
            raise


def merge(parts: list[Path], directory: Path) -> None:
    """Parts of one checkpoint as one."""
    tensors, settings = {}, []
    for part in parts:
        tensors |= _read_tensors(part)
        settings.append(layouts.read_settings(part))
    other = [one for one in settings if one["checkpoint_format"] != "gptq_v2"]
    _write(directory, tensors, (other or settings)[0])
    InferenceScheme.merge([InferenceScheme.read(part) for part in parts]).write(directory)
    _same_or_raise(tensors, _read_tensors(directory))


def _write(directory: Path, tensors: dict[str, torch.Tensor], settings: dict) -> None:
    save_file(tensors, directory / "model.safetensors")
    (directory / "quantize_config.json").write_text(json.dumps(settings))


def _read_tensors(directory: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    return tensors


def _tensors(weight: Weight) -> dict[str, torch.Tensor]:
    if isinstance(weight, DenseWeight):
        return {"dense": weight.values}
    if isinstance(weight, CodebookWeight):
        return bitsandbytes.parts(weight)
    one_scale = weight.scales.shape[0] != weight.codes.shape[0]
    parts = {"scales": weight.scales.T, "g_idx": weight.group_of.to(torch.int32)}
    parts["elements" if isinstance(weight, ElementWeight) else "qweight"] = pack(weight.codes.T, weight.bits)
    if isinstance(weight, ElementWeight):
        pass
    elif weight.zeros.is_floating_point():
        parts["zeros"] = weight.zeros
    else:
        parts["qzeros"] = pack(weight.zeros, weight.bits).T
    if weight.input_scales is not None:
        parts["input_scales"] = weight.input_scales
    if weight.width is not None or one_scale or isinstance(weight, ElementWeight):
        parts["shape"] = torch.tensor([len(weight.codes), weight.width or weight.codes.shape[1]])
    return parts


def read(directory: Path) -> tuple[dict[str, Weight], dict[str, torch.Tensor]]:
    """A checkpoint's quantized weights by layer name, and its other tensors (embeddings, norms, biases).

    Our own, or in one of the published layouts. Raises UserError for any other, and for one that contradicts itself.
    """
    settings, tensors = layouts.read_settings(directory), _read_tensors(directory)
    return layouts.take(tensors, settings, directory), tensors


def one_by_one(directory: Path) -> tuple[int, Iterator[tuple[str, Weight]]]:
    """How many quantized weights a checkpoint holds, and each with its layer's name: unpacked, all at once take much memory."""
    settings, where = layouts.read_settings(directory), {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            where |= dict.fromkeys(file.keys(), path)
    names = sorted({name for key in where if (name := layouts.layer_of(key)) is not None})

    def each() -> Iterator[tuple[str, Weight]]:
        for name in names:
            tensors = {}
            for key in (key for key in where if key.startswith(f"{name}.")):
                with safe_open(where[key], "pt") as file:
                    tensors[key] = file.get_tensor(key)
            yield from layouts.take(tensors, settings, directory).items()

    return len(names), each()


def load(directory: Path, model: torch.nn.Module) -> tuple[dict[str, Weight], dict[str, torch.Tensor]]:
    """A checkpoint's weights of the layers in this model's blocks, and its other tensors by their names in the model.

    Noise is added to the weights of the model, which must be in full precision. A layer outside the blocks that is quantized
    too becomes one of the others; biases of zeros for layers that have none, and buffers that are computed, are left out.
    Raises UserError where names or shapes are not this model's.
    """
    if (directory / noise.SETTINGS).is_file():
        return noise.read(directory, model), {}
    weights, others = read(directory)
    own = own_names(model)
    weights = {own(f"{name}.weight").removesuffix(".weight"): weight for name, weight in weights.items()}
    others = {own(name): tensor for name, tensor in others.items()}
    layers, shapes = block_linears(model), {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in set(weights) - set(layers):
        others[f"{name}.weight"] = weights.pop(name).dequantize()
    others = {name: tensor for name, tensor in others.items() if name in shapes or not _means_nothing(name, tensor)}
    kept = layouts.read_settings(directory).get("weights") == "kept"
    if (missing := set(layers) - set(weights)) and not kept:
        raise UserError(f"{directory} lacks layers of this model: {', '.join(sorted(missing))}.")
    if unexpected := sorted(set(others) - set(shapes)):
        raise UserError(f"{directory} holds tensors that this model does not have: {', '.join(unexpected[:5])}.")
    if differ := [name for name, tensor in others.items() if tensor.shape != shapes[name]]:
        given, expected = tuple(others[differ[0]].shape), tuple(shapes[differ[0]])
        raise UserError(f"{directory}: {differ[0]} has the shape {given}, but {expected} in this model.")
    return weights, others


def own_names(model: torch.nn.Module) -> Callable[[str], str]:
    """From tensors' names in published files to those in the model, by the rules that transformers loads it with.

    Files of older versions call some modules otherwise, and those of a model without its head lack the prefix.
    """
    renamings = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    modules, inside = dict(model.named_modules()), {name for name, _ in model.named_children()}

    def own(name: str) -> str:
        if name.rpartition(".")[0] in modules:
            return name
        renamed = apply_renamings(name, renamings)
        return renamed if renamed.split(".")[0] in inside else f"{model.base_model_prefix}.{renamed}"

    return own


def _means_nothing(name: str, tensor: torch.Tensor) -> bool:
    """Tensors that older libraries save and a model can do without."""
    return name.endswith((".rotary_emb.inv_freq", ".attn.bias", ".masked_bias")) or (
        name.endswith(".bias") and not tensor.any().item()
    )


@torch.no_grad()
def put_into(model: torch.nn.Module, directory: Path) -> InferenceRounding:
    """Give a full-precision model a checkpoint's tensors, wherever accelerate keeps them, and its hooks.

    Returns:
        The hooks that round activations, keys and values; scoring needs them.

    Raises:
        UserError: As `load`.
    """
    weights, others = load(directory, model)
    scheme = InferenceScheme.read(directory)
    for division in scheme.divisions:
        division.apply(model.get_submodule)
    for reassembled in () if weights else scheme.reassembled:  # quantized weights are of reassembled channels already
        reassembled.apply(model.get_submodule)
    offloaded = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    model.load_state_dict({name: tensor for name, tensor in others.items() if name not in offloaded}, strict=False)
    for name in offloaded & set(others):
        _replace_offloaded(model, name, others[name])
    layers = block_linears(model)
    for name, weight in weights.items():
        values = scheme.layer_matrix(weight)
        if layers[name].weight.is_meta:
            _replace_offloaded(model, f"{name}.weight", as_stored(layers[name], values))
        else:
            matrix(layers[name]).copy_(values)
    return attach(model, scheme, scheme.input_factors(weights))


def _replace_offloaded(model: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replace what accelerate's hook brings when it is needed; the parameter itself is empty, a copy into it does nothing."""
    from accelerate.utils import offload_weight

    module, _, own = name.rpartition(".")
    kept = model.get_submodule(module)._hf_hook.weights_map
    values = tensor.to(model.get_parameter(name).dtype).cpu()
    if name in kept.dataset.state_dict:
        kept.dataset.state_dict[name] = values
    else:
        offload_weight(values, name, kept.dataset.save_folder, kept.dataset.index)
    if not torch.equal(_bits(kept[own]), _bits(values)):
        raise UserError(f"{name} could not be replaced where accelerate keeps it. No score is taken from that.")
