"""Quantized weights on disk: written, read back, and put into a model.

Integer weights go into the packed layout of GPTQ checkpoints, with what that layout has no room for beside it. Unpacking
once into ordinary linear layers serves every width, where the packed kernels serve some, and it is faster to score with.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bitsure.errors import UserError
from bitsure.quantize import noise
from bitsure.quantize.formats import DenseWeight, IntegerWeight, Weight
from bitsure.quantize.packing import pack, unpack
from bitsure.quantize.targets import block_linears, matrix

PACKED = ("qweight", "qzeros", "scales", "g_idx")


def write(directory: Path, weights: dict[str, Weight], others: dict[str, torch.Tensor] | None = None) -> None:
    """Write quantized weights by layer name, and tensors that are not a layer's weight (a cast changes those too).

    Integers alone make the `gptq_v2` layout (zero points as they are); `bitsure` is that with input scales, padding, one
    scale a tensor, or dense matrices.
    """
    tensors = dict(others or {})
    for name, weight in weights.items():
        tensors |= {
            f"{name}.{part}": tensor.clone(memory_format=torch.contiguous_format) for part, tensor in _tensors(weight).items()
        }
    integers = [weight for weight in weights.values() if isinstance(weight, IntegerWeight)]
    plain = len(integers) == len(weights) and not any(set(_tensors(w)) - set(PACKED) for w in integers)
    _write(directory, tensors, integers[0].bits if integers else None, plain)


def write_part(directory: Path, weights: dict[str, Weight]) -> None:
    """The same, there whole or not at all."""
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary, weights)
    temporary.rename(directory)


def merge(parts: list[Path], directory: Path) -> None:
    """Parts of one checkpoint as one."""
    tensors, settings = {}, []
    for part in parts:
        tensors |= _read_tensors(part)
        settings.append(json.loads((part / "quantize_config.json").read_text()))
    plain = all(one["checkpoint_format"] == "gptq_v2" for one in settings)
    _write(directory, tensors, settings[0]["bits"], plain)


def _write(directory: Path, tensors: dict[str, torch.Tensor], bits: int | None, plain: bool) -> None:
    save_file(tensors, directory / "model.safetensors")
    settings = {"bits": bits, "checkpoint_format": "gptq_v2" if plain else "bitsure"}
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
    one_scale = weight.scales.shape[0] != weight.codes.shape[0]
    parts = {
        "qweight": pack(weight.codes.T, weight.bits),
        "qzeros": pack(weight.zeros, weight.bits).T,
        "scales": weight.scales.T,
        "g_idx": weight.group_of.to(torch.int32),
    }
    if weight.input_scales is not None:
        parts["input_scales"] = weight.input_scales
    if weight.width is not None or one_scale:
        parts["shape"] = torch.tensor([len(weight.codes), weight.width or weight.codes.shape[1]])
    return parts


def read(directory: Path) -> tuple[dict[str, Weight], dict[str, torch.Tensor]]:
    """A checkpoint's quantized weights by layer name, and its other tensors (embeddings, norms, biases).

    Reads the formats `gptq` (zero points stored less one), `gptq_v2` and `bitsure`. Raises UserError for any other,
    and for zero points out of range.
    """
    settings = json.loads((directory / "quantize_config.json").read_text())
    layout = settings.get("checkpoint_format")
    if layout not in ("gptq", "gptq_v2", "bitsure"):
        raise UserError(f"{directory}: checkpoint_format={layout}; this reads gptq, gptq_v2 and bitsure.")
    tensors = _read_tensors(directory)
    weights: dict[str, Weight] = {}
    for key in list(tensors):
        name, _, part = key.rpartition(".")
        if part == "dense":
            weights[name] = DenseWeight(tensors.pop(key))
        elif part == "qweight":
            weights[name] = _integers(name, settings["bits"], layout, tensors, directory)
    return weights, tensors


def _integers(name: str, bits: int, layout: str, tensors: dict[str, torch.Tensor], directory: Path) -> IntegerWeight:
    qweight, qzeros, scales, g_idx = (tensors.pop(f"{name}.{part}") for part in PACKED)
    shape, input_scales = tensors.pop(f"{name}.shape", None), tensors.pop(f"{name}.input_scales", None)
    stored, width = len(g_idx), None if shape is None else int(shape[1])
    zeros = unpack(qzeros.T, bits, scales.shape[1])
    if layout == "gptq":
        zeros = zeros + 1
        if zeros.max() >= 2**bits:
            raise UserError(f"{directory}: {name} has zero points that the format gptq cannot hold; gptq_v2 can.")
    return IntegerWeight(
        bits=bits,
        codes=unpack(qweight, bits, stored).T.contiguous(),
        scales=scales.T.contiguous(),
        zeros=zeros,
        group_of=g_idx.long(),
        input_scales=input_scales,
        width=None if width == stored else width,
    )


def load(directory: Path, model: torch.nn.Module) -> tuple[dict[str, Weight], dict[str, torch.Tensor]]:
    """What `read` gives, of noise too, which is added to the weights of the model in full precision."""
    return (noise.read(directory, model), {}) if (directory / noise.SETTINGS).is_file() else read(directory)


@torch.no_grad()
def put_into(model: torch.nn.Module, directory: Path) -> None:
    """Replace a full-precision model's tensors by the checkpoint's, dequantized. Raises UserError if a layer is missing."""
    weights, others = load(directory, model)
    layers = block_linears(model)
    if missing := set(layers) - set(weights):
        raise UserError(f"{directory} lacks layers of this model: {', '.join(sorted(missing))}.")
    unexpected = [*(set(weights) - set(layers)), *model.load_state_dict(others, strict=False).unexpected_keys]
    if unexpected:
        raise UserError(f"{directory} holds tensors that this model does not have: {', '.join(unexpected[:5])}.")
    for name, layer in layers.items():
        matrix(layer).copy_(weights[name].dequantize())
