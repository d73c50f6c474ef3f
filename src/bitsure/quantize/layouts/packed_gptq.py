"""The packed layout of GPTQ: qweight (in·bits/32, out), qzeros (groups, out·bits/32), scales (groups, out), g_idx (in)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.layouts.layout import Layout, dynamic_settings, layers_with
from bitsure.quantize.weights import IntegerWeight


class GptqLayout(Layout):
    """GPTQ's: zero points are stored less one in the format `gptq`, the default, and as they are in `gptq_v2`."""

    quant_method = "gptq"
    suffixes = (".qweight",)

    def take(self, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> dict[str, IntegerWeight]:
        """Remove the integer weights, each with the settings that `dynamic` gives its layer; see `Layout.take`."""
        _variant(settings, where)
        return {name: _layer(name, tensors, settings, where) for name in layers_with(tensors, ".qweight")}

    def leaves_out(self, layer: str, settings: Mapping[str, Any]) -> bool:
        """Return whether `dynamic` leaves a layer out, or optimum's list of a block's quantized layers lacks it."""
        quantized = [name for group in settings.get("modules_in_block_to_quantize") or () for name in group]
        listed = not quantized or any(layer.endswith(f".{name}") for name in quantized)
        return dynamic_settings(layer, settings) is None or not listed


def _variant(settings: Mapping[str, Any], where: Path) -> str:
    variant = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if settings.get("is_marlin_format"):
        variant = "marlin"
    if variant not in ("gptq", "gptq_v2"):
        raise UserError(f"{where}: checkpoint_format={variant}; of GPTQ's, gptq and gptq_v2 are read.")
    return str(variant)


def _layer(name: str, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> IntegerWeight:
    own = {**settings, **(dynamic_settings(name, settings) or {})}
    variant, words = _variant(own, where), tensors[f"{name}.qweight"].dtype
    if words != torch.int32:
        raise UserError(f"{where}: {name} is packed into {words}; words of torch.int32 are read.")
    weight = IntegerWeight.from_tensors(name, tensors, own)
    if variant == "gptq":
        weight = dataclasses.replace(weight, zeros=weight.zeros + 1)
        if weight.zeros.max() >= 2**weight.bits:
            raise UserError(f"{where}: {name} has zero points that the format gptq cannot hold; gptq_v2 can.")
    return weight
