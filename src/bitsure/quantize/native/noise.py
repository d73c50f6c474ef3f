"""Gaussian noise on the weights, as large in each layer's output as what a quantizer did: the control of its effects.

What a quantized model does and this one does not is more than the size of the error. The noise is drawn from a seed and not
kept: a checkpoint says how large it is.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from bitsure.base.files import hash_json
from bitsure.quantize.proof.output_errors import output_errors
from bitsure.quantize.walk.targets import block_linears, matrix
from bitsure.quantize.weights.formats import DenseWeight

SETTINGS = "noise.json"


def match(model: nn.Module, like: dict, held_out: torch.Tensor, seed: int, out: Path) -> None:
    """Find each layer's scale and write the checkpoint into `out`.

    like: quantization.json of the quantizer, whose `output_error` of each layer was measured on the same held_out tokens
    (windows, seqlen). The output error is proportional to the scale but for the rounding of the model's type, so that a
    second look is all the search there is to do.
    """
    layers = block_linears(model)
    scales = dict.fromkeys(layers, 1.0)
    for _ in range(2):
        measured = output_errors(model, _with_noise(model, scales, seed), held_out)
        scales = {
            name: scales[name] * like["layers"][name]["output_error"] / measured[name] if measured[name] else 0.0
            for name in layers
        }
    (out / SETTINGS).write_text(json.dumps({"seed": seed, "scales": scales}))


def read(directory: Path, model: nn.Module) -> dict[str, DenseWeight]:
    """The weights of a full-precision model with a checkpoint's noise on them."""
    settings = json.loads((directory / SETTINGS).read_text())
    return {name: DenseWeight(weight) for name, weight in _with_noise(model, settings["scales"], settings["seed"]).items()}


def _with_noise(model: nn.Module, scales: dict[str, float], seed: int) -> dict[str, torch.Tensor]:
    return {
        name: matrix(layer).detach().float().cpu() + scales[name] * draw(seed, name, layer)
        for name, layer in block_linears(model).items()
    }


def draw(seed: int, name: str, layer: nn.Module) -> torch.Tensor:
    """Standard normal numbers of the shape of a layer's weight, (out, in), the same wherever they are drawn."""
    generator = torch.Generator().manual_seed(int(hash_json([seed, name])[:12], 16))
    return torch.randn(matrix(layer).shape, generator=generator)
