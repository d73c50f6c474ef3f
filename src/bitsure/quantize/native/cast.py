"""Every tensor of a model rounded to a floating-point type: half precision as a quantizer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.config.other_quantizers import Cast
from bitsure.models import source as models
from bitsure.quantize.walk.targets import block_linears, matrix
from bitsure.quantize.weights.formats import DenseWeight

HOLDS = {"float32": {"F32", "BF16", "F16"}, "bfloat16": {"BF16"}, "float16": {"F16"}}  # exactly, by safetensors' names


def check(quant: Cast, path: Path, computing_dtype: str) -> None:
    """Raise UserError where the cast can change nothing, as far as can be said without loading weights."""
    ways = "The cast would change nothing. quant=none scores the checkpoint as it is."
    stored = set(models.stored_types(path))
    if stored and stored <= HOLDS[quant.dtype]:
        types = ", ".join(sorted(stored))
        raise UserError(f"quant={quant.name}: the model is stored as {types}, which {quant.dtype} holds exactly. {ways}")
    if computing_dtype != "float32":
        raise UserError(
            f"quant={quant.name}: the full-precision model is already rounded to {computing_dtype}, the type that it is "
            f"computed in (model.dtype), so that it has nothing left to lose. model.dtype=float32 shows what the cast does."
        )


def cast(model: nn.Module, quant: Cast) -> tuple[dict[str, DenseWeight], dict[str, torch.Tensor]]:
    """The layers' weights and all other floating-point tensors in the type; what is tied is there once."""
    dtype = getattr(torch, quant.dtype)
    layers = block_linears(model)
    weights = {name: DenseWeight(matrix(layer).detach().to(dtype)) for name, layer in layers.items()}
    others, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if name.removesuffix(".weight") not in layers and tensor.is_floating_point() and tensor.data_ptr() not in seen:
            others[name] = tensor.to(dtype)
            seen.add(tensor.data_ptr())
    return weights, others
