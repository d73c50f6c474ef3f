"""HQQ (Badri & Shaji 2023, half-quadratic quantization) through hqq's own quantizer."""

from __future__ import annotations

import torch
from torch import nn

from bitsure.config.other_quantizers import Hqq
from bitsure.quantize.walk.targets import block_linears, matrix
from bitsure.quantize.weights.formats import IntegerWeight


def quantize(model: nn.Module, quant: Hqq) -> dict[str, IntegerWeight]:
    """The model's layers as hqq rounds them, by name."""
    return {name: quantize_weight(matrix(layer), quant) for name, layer in block_linears(model).items()}


def quantize_weight(weight: torch.Tensor, quant: Hqq) -> IntegerWeight:
    """A weight (out, in) in groups along its rows (hqq's axis 1), scales and floating zero points in float16.

    hqq lets groups run on from row to row where they do not divide the width; here the last group of a row is shorter.
    """
    width = weight.shape[1]
    size = quant.group_size if quant.group_size > 0 else width
    parts = [part for part in weight.tensor_split([width // size * size], 1) if part.numel()]
    found = [_quantize(part, quant.bits, min(size, part.shape[1])) for part in parts]
    codes, scales, zeros = (torch.cat(of_parts, 1) for of_parts in zip(*found, strict=True))
    return IntegerWeight(quant.bits, codes, scales, zeros, torch.arange(width) // size)


def _quantize(weight: torch.Tensor, bits: int, group_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes (out, in) int32, scales and zero points (out, groups) float16 of whole groups, with HQQLinear's settings."""
    from hqq.core.quantize import BaseQuantizeConfig, Quantizer

    settings = BaseQuantizeConfig(nbits=bits, group_size=None, axis=1)["weight_quant_params"] | {"group_size": group_size}
    codes, meta = Quantizer.quantize(
        weight.detach().contiguous(), **settings, bitpack=False, device=weight.device, compute_dtype=torch.float16
    )
    rows = len(weight)
    return codes.view(rows, -1).to(torch.int32), meta["scale"].view(rows, -1).half(), meta["zero"].view(rows, -1).half()
