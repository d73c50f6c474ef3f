"""Our own layout of small floating-point formats: their bits packed as the integers of GPTQ checkpoints are."""

from __future__ import annotations

import torch

from bitsure.config.number_formats import ELEMENTS
from bitsure.quantize.weights.formats import ElementWeight
from bitsure.quantize.weights.packing import unpack


def take(tensors: dict[str, torch.Tensor], settings: dict) -> dict[str, ElementWeight]:
    """`elements` (⌈in·bits/32⌉, out) int32, `scales` (groups, out), `g_idx` (in), `shape`; `settings` name the format."""
    names = [key.removesuffix(".elements") for key in tensors if key.endswith(".elements")]
    return {name: _layer(name, settings["elements"], tensors) for name in names}


def _layer(name: str, format: str, tensors: dict[str, torch.Tensor]) -> ElementWeight:
    words, scales, group_of, shape = (tensors.pop(f"{name}.{part}") for part in ("elements", "scales", "g_idx", "shape"))
    return ElementWeight(
        format=format,
        codes=unpack(words, ELEMENTS[format].bits, len(group_of)).T.to(torch.uint8).contiguous(),
        scales=scales.T.contiguous(),
        group_of=group_of.long(),
        input_scales=tensors.pop(f"{name}.input_scales", None),
        width=None if int(shape[1]) == len(group_of) else int(shape[1]),
    )
