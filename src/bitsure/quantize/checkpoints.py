"""Packed GPTQ checkpoints: writing integer weights as one, reading them back, and putting them into a model.

Dequantizing once into ordinary linear layers serves every width, where the packed kernels serve some, and it is
faster to score with.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bitsure.errors import UserError
from bitsure.quantize.formats import IntegerWeight, pack, unpack
from bitsure.quantize.targets import block_linears

PACKED = ("qweight", "qzeros", "scales", "g_idx")


def write(directory: Path, weights: dict[str, IntegerWeight]) -> None:
    """Write integer weights in the `gptq_v2` layout (zero points as they are), without the model's other tensors."""
    tensors = {}
    for name, weight in weights.items():
        tensors[f"{name}.qweight"] = pack(weight.codes.T, weight.bits)
        tensors[f"{name}.qzeros"] = pack(weight.zeros, weight.bits).T.contiguous()
        tensors[f"{name}.scales"] = weight.scales.T.contiguous()
        tensors[f"{name}.g_idx"] = weight.group_of.to(torch.int32)
    bits = next(iter(weights.values())).bits
    save_file(tensors, directory / "model.safetensors")
    (directory / "quantize_config.json").write_text(json.dumps({"bits": bits, "checkpoint_format": "gptq_v2"}))


def read(directory: Path) -> tuple[dict[str, IntegerWeight], dict[str, torch.Tensor]]:
    """A checkpoint's integer weights by layer name, and its other tensors (embeddings, norms, biases).

    Reads the formats `gptq` (zero points stored less one) and `gptq_v2`. Raises UserError for any other,
    and for zero points out of range.
    """
    settings = json.loads((directory / "quantize_config.json").read_text())
    bits, layout = settings["bits"], settings.get("checkpoint_format")
    if layout not in ("gptq", "gptq_v2"):
        raise UserError(f"{directory}: checkpoint_format={layout}; this reads gptq and gptq_v2.")
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    weights = {}
    for name in [key.removesuffix(".qweight") for key in tensors if key.endswith(".qweight")]:
        qweight, qzeros, scales, g_idx = (tensors.pop(f"{name}.{part}") for part in PACKED)
        zeros = unpack(qzeros.T, bits, scales.shape[1])
        if layout == "gptq":
            zeros = zeros + 1
            if zeros.max() >= 2**bits:
                raise UserError(f"{directory}: {name} has zero points that the format gptq cannot hold; gptq_v2 can.")
        weights[name] = IntegerWeight(
            bits=bits,
            codes=unpack(qweight, bits, len(g_idx)).T.contiguous(),
            scales=scales.T.contiguous(),
            zeros=zeros,
            group_of=g_idx.long(),
        )
    return weights, tensors


def put_into(model: torch.nn.Module, directory: Path) -> None:
    """Replace a full-precision model's tensors by the checkpoint's, dequantized. Raises UserError if a layer is missing."""
    weights, others = read(directory)
    if missing := set(block_linears(model)) - set(weights):
        raise UserError(f"{directory} lacks layers of this model: {', '.join(sorted(missing))}.")
    dequantized = {f"{name}.weight": weight.dequantize() for name, weight in weights.items()}
    unexpected = model.load_state_dict(others | dequantized, strict=False).unexpected_keys
    if unexpected:
        raise UserError(f"{directory} holds tensors that this model does not have: {', '.join(unexpected[:5])}.")
