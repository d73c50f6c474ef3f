"""Noise that is drawn from a seed and not kept: a checkpoint says how large it is in each layer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from bitsure.base.files import hash_json
from bitsure.quantize.walk.targets import block_linears, matrix
from bitsure.quantize.weights import DenseWeight

SETTINGS = "noise.json"


def write(directory: Path, scales: dict[str, float], seed: int) -> None:
    """Write a checkpoint. scales: layer → standard deviation of the noise on its weight."""
    (directory / SETTINGS).write_text(json.dumps({"seed": seed, "scales": scales}), encoding="utf-8")


def read(directory: Path, model: nn.Module) -> dict[str, DenseWeight]:
    """Return the weights of a full-precision model with a checkpoint's noise on them, where that is not 0."""
    settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
    scales: dict[str, float] = settings["scales"]
    noisy = add_noise(model, scales, settings["seed"])
    return {name: DenseWeight(weight) for name, weight in noisy.items() if scales[name]}


def add_noise(model: nn.Module, scales: dict[str, float], seed: int) -> dict[str, torch.Tensor]:
    """Return the layers' weights, (out, in) float32 on the CPU, with noise of these standard deviations."""
    return {name: noisy_weight(name, layer, scales[name], seed) for name, layer in block_linears(model).items()}


def noisy_weight(name: str, layer: nn.Module, scale: float, seed: int) -> torch.Tensor:
    """Return a layer's weight, (out, in) float32 on the CPU, with noise of a standard deviation."""
    return matrix(layer).detach().float().cpu() + scale * draw(seed, name, layer)


def draw(seed: int, name: str, layer: nn.Module) -> torch.Tensor:
    """Return standard normal numbers of the shape of a layer's weight, (out, in), the same wherever they are drawn."""
    generator = torch.Generator().manual_seed(int(hash_json([seed, name])[:12], 16))
    return torch.randn(matrix(layer).shape, generator=generator)
