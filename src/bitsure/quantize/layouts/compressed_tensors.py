"""The layouts of compressed-tensors (llm-compressor, vLLM) for integers, one scale for each group, row or tensor.

`pack-quantized`: weight_packed (out, in·bits/32), weight_scale, weight_shape, weight_zero_point packed along out;
`int-quantized` and `naive-quantized`: weight int8 (out, in), weight_scale, weight_zero_point. Integers are signed; packed
ones are stored with 2^(bits−1) added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.layouts.layout import ExportLayout, layers_with, matches
from bitsure.quantize.weights import IntegerWeight
from bitsure.quantize.weights.packing import pack, unpack

# Scales of activations, keys and values, which stay in full precision here.
NOT_WEIGHTS = tuple(f".{what}_{part}" for what in ("input", "output", "k", "v") for part in ("scale", "zero_point"))
FORMATS = ("pack-quantized", "int-quantized", "naive-quantized", "dense", "mixed-precision")


class CompressedTensorsLayout(ExportLayout):
    """compressed-tensors' integers."""

    quant_method = "compressed-tensors"
    only_linear = True
    published_names = True
    suffixes = (".weight_packed", ".weight_scale")

    def take(self, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> dict[str, IntegerWeight]:
        """Remove the integer weights, and what belongs to activations, keys and values; see `Layout.take`."""
        _check(settings, where)
        for key in [key for key in tensors if key.endswith(NOT_WEIGHTS)]:
            del tensors[key]
        groups = settings.get("config_groups", {}).values()
        widths = {group["weights"]["num_bits"] for group in groups if group.get("weights")}
        return {name: _layer(name, widths, tensors, where) for name in layers_with(tensors, ".weight_scale")}

    def put(
        self, weights: Mapping[str, IntegerWeight], unquantized: Sequence[str]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return each layer as `pack-quantized` has it; layers of one scheme make a group. See `ExportLayout.put`."""
        tensors: dict[str, torch.Tensor] = {}
        layers_of: dict[tuple[int, bool, int], list[str]] = {}
        sizes = {name: _group_size(name, weight) for name, weight in weights.items()}
        by_row = all(weight.scales.shape[1] == 1 for weight in weights.values())
        for name, weight in weights.items():
            scheme = weight.bits, weight.is_symmetric, -1 if by_row else sizes[name]
            layers_of.setdefault(scheme, []).append(name)
            tensors |= {f"{name}.{part}": tensor.contiguous() for part, tensor in _packed(weight).items()}
        groups = {
            f"group_{number}": {"targets": layers if len(layers_of) > 1 else ["Linear"], "weights": _arguments(*scheme)}
            for number, (scheme, layers) in enumerate(layers_of.items())
        }
        return tensors, {
            "quant_method": self.quant_method,
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": list(unquantized),
        }

    def leaves_out(self, layer: str, settings: Mapping[str, Any]) -> bool:
        """Return whether a layer is ignored, or is the target of no group that quantizes weights."""
        groups = [group for group in settings.get("config_groups", {}).values() if group.get("weights")]
        targets = [target for group in groups for target in group.get("targets") or ["Linear"]]
        return _named(settings.get("ignore") or (), layer) or not ("Linear" in targets or _named(targets, layer))


def _named(targets: Iterable[str], layer: str) -> bool:
    """Return whether a layer is among targets: its name, or a regular expression after `re:`."""
    return any(matches(target[3:], layer) if target.startswith("re:") else target == layer for target in targets)


def _check(settings: Mapping[str, Any], where: Path) -> None:
    groups = list(settings.get("config_groups", {}).values())
    for layout in (settings.get("format", "dense"), *(group.get("format") or "dense" for group in groups)):
        if layout not in FORMATS:
            raise UserError(f"{where}: format={layout}; of compressed-tensors', {', '.join(FORMATS[:3])} are read.")
    for name, group in settings.get("config_groups", {}).items():
        if (weights := group.get("weights")) and weights.get("type", "int") != "int":
            raise UserError(f"{where}: {name} holds weights of type={weights['type']}; of compressed-tensors', int is read.")
    if settings.get("transform_config") or settings.get("sparsity_config", {}).get("format", "dense") != "dense":
        raise UserError(f"{where}: its transforms or sparsity are not read; only quantized weights are.")


def _layer(name: str, widths: set[int], tensors: dict[str, torch.Tensor], where: Path) -> IntegerWeight:
    scales = tensors.pop(f"{name}.weight_scale")
    scales = scales.reshape(-1, 1) if scales.ndim < 2 else scales
    packed, shape = tensors.pop(f"{name}.weight_packed", None), tensors.pop(f"{name}.weight_shape", None)
    zeros, group_of = tensors.pop(f"{name}.weight_zero_point", None), tensors.pop(f"{name}.weight_g_idx", None)
    if packed is not None and shape is not None:
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
    return IntegerWeight(bits=bits, codes=codes, scales=scales, zeros=zeros, group_of=group_of.long())


def _group_size(name: str, weight: IntegerWeight) -> int:
    """Return the number of weights that share a scale. Raises UserError for groups that the layout cannot hold."""
    width, groups = weight.codes.shape[1], weight.scales.shape[1]
    size = -(-width // groups)
    if width % groups or not torch.equal(weight.group_of, torch.arange(width) // size):
        raise UserError(f"{name} has groups of columns that do not follow each other, or a shorter last one")
    return size


def _packed(weight: IntegerWeight) -> dict[str, torch.Tensor]:
    parts = {
        "weight_packed": pack(weight.codes.T, weight.bits).T,
        "weight_scale": weight.scales,
        "weight_shape": torch.tensor(weight.codes.shape),
    }
    return parts if weight.is_symmetric else parts | {"weight_zero_point": pack(weight.zeros, weight.bits)}


def _arguments(bits: int, symmetric: bool, group_size: int) -> dict[str, Any]:
    """Return a group's `weights`, as compressed-tensors' QuantizationArgs has them."""
    strategy = {"strategy": "channel"} if group_size < 0 else {"strategy": "group", "group_size": group_size}
    return {"num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False, **strategy}
