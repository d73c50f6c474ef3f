"""The packed layout of GPTQ: qweight (in·bits/32, out), qzeros (groups, out·bits/32), scales (groups, out), g_idx (in)."""

from __future__ import annotations

from pathlib import Path

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.weights.formats import IntegerWeight
from bitsure.quantize.weights.packing import unpack


def take(tensors: dict[str, torch.Tensor], settings: dict, where: Path) -> dict[str, IntegerWeight]:
    """Zero points are stored less one in `gptq`, the format where none is named, and as they are in `gptq_v2`."""
    layout = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if settings.get("is_marlin_format"):
        layout = "marlin"
    if layout not in ("gptq", "gptq_v2", "bitsure"):
        raise UserError(f"{where}: checkpoint_format={layout}; of GPTQ's, gptq and gptq_v2 are read.")
    names = [key.removesuffix(".qweight") for key in tensors if key.endswith(".qweight")]
    return {name: _layer(name, settings["bits"], layout, tensors, where) for name in names}


def _layer(name: str, bits: int, layout: str, tensors: dict[str, torch.Tensor], where: Path) -> IntegerWeight:
    part = {part: tensors.pop(f"{name}.{part}", None) for part in ("qweight", "qzeros", "scales", "g_idx")}
    part |= {part: tensors.pop(f"{name}.{part}", None) for part in ("zeros", "input_scales", "shape")}  # our own
    words, scales = part["qweight"], part["scales"]
    group_of = _groups(len(words) * 32 // bits, len(scales)) if part["g_idx"] is None else part["g_idx"].long()
    stored = len(group_of)
    if len(words) != -(-stored * bits // 32):
        raise UserError(f"{where}: {name} has {len(words)} × 32 bits for {stored} weights a row, which are not {bits} each.")
    zeros = part["zeros"]
    if zeros is None:
        zeros = unpack(part["qzeros"].T, bits, scales.shape[1])
    if layout == "gptq":
        zeros = zeros + 1
        if zeros.max() >= 2**bits:
            raise UserError(f"{where}: {name} has zero points that the format gptq cannot hold; gptq_v2 can.")
    width = None if part["shape"] is None else int(part["shape"][1])
    return IntegerWeight(
        bits=bits,
        codes=unpack(words, bits, stored).T.contiguous(),
        scales=scales.T.contiguous(),
        zeros=zeros,
        group_of=group_of,
        input_scales=part["input_scales"],
        width=None if width == stored else width,
    )


def _groups(width: int, groups: int) -> torch.Tensor:
    return torch.arange(width) // -(-width // groups)
