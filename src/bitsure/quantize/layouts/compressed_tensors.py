"""The layouts of compressed-tensors (llm-compressor, vLLM) for integers, one scale for each group, row or tensor.

`pack-quantized`: weight_packed (out, in·bits/32), weight_scale, weight_shape, weight_zero_point packed along out;
`int-quantized` and `naive-quantized`: weight int8 (out, in), weight_scale, weight_zero_point. Integers are signed; packed
ones are stored with 2^(bits−1) added.
"""

from __future__ import annotations

from pathlib import Path

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.weights.formats import IntegerWeight
from bitsure.quantize.weights.packing import unpack

# of activations, keys and values, which stay in full precision here
NOT_WEIGHTS = tuple(f".{what}_{part}" for what in ("input", "output", "k", "v") for part in ("scale", "zero_point"))
FORMATS = ("pack-quantized", "int-quantized", "naive-quantized", "dense", "mixed-precision")


def take(tensors: dict[str, torch.Tensor], settings: dict, where: Path) -> dict[str, IntegerWeight]:
    groups = list(settings.get("config_groups", {}).values())
    for layout in {settings.get("format", "dense"), *(group.get("format") or "dense" for group in groups)}:
        if layout not in FORMATS:
            raise UserError(f"{where}: format={layout}; of compressed-tensors', {', '.join(FORMATS[:3])} are read.")
    if settings.get("transform_config") or settings.get("sparsity_config", {}).get("format", "dense") != "dense":
        raise UserError(f"{where}: its transforms or sparsity are not read; only quantized weights are.")
    for key in [key for key in tensors if key.endswith(NOT_WEIGHTS)]:
        del tensors[key]
    widths = {group["weights"]["num_bits"] for group in groups if group.get("weights")}
    names = [key.removesuffix(".weight_scale") for key in tensors if key.endswith(".weight_scale")]
    return {name: _layer(name, widths, tensors, where) for name in names}


def _layer(name: str, widths: set[int], tensors: dict[str, torch.Tensor], where: Path) -> IntegerWeight:
    scales = tensors.pop(f"{name}.weight_scale")
    packed, shape = tensors.pop(f"{name}.weight_packed", None), tensors.pop(f"{name}.weight_shape", None)
    zeros, group_of = tensors.pop(f"{name}.weight_zero_point", None), tensors.pop(f"{name}.weight_g_idx", None)
    scales = scales.reshape(-1, 1) if scales.ndim < 2 else scales
    if packed is not None:
        rows, width = shape.tolist()
        fitting = [bits for bits in widths if -(-width * bits // 32) == packed.shape[1]]
        if len(fitting) != 1:
            raise UserError(f"{where}: {name} has {packed.shape[1]} words for {width} weights a row, which fits no num_bits.")
        bits = fitting[0]
        codes = unpack(packed.T, bits, width).T.contiguous()
        zeros = None if zeros is None else unpack(zeros, bits, rows)
    else:
        weight = tensors.pop(f"{name}.weight")
        if weight.dtype != torch.int8:
            raise UserError(f"{where}: {name}.weight is {weight.dtype}; integers are read.")
        bits, width = 8, weight.shape[1]
        codes = weight.to(torch.int32) + 128
        zeros = None if zeros is None else zeros.to(torch.int32).reshape(scales.shape) + 128
    if zeros is None:
        zeros = torch.full_like(scales, 2 ** (bits - 1), dtype=torch.int32)
    if group_of is None or (group_of < 0).any():
        group_of = torch.arange(width) // -(-width // scales.shape[1])
    return IntegerWeight(bits, codes, scales, zeros, group_of.long())
