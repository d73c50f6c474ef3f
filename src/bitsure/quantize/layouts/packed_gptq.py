"""The packed layout of GPTQ: qweight (in·bits/32, out), qzeros (groups, out·bits/32), scales (groups, out), g_idx (in)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.layouts.layout import Layout, layers_with
from bitsure.quantize.weights import IntegerWeight


class GptqLayout(Layout):
    """GPTQ's: zero points are stored less one in the format `gptq`, the default, and as they are in `gptq_v2`."""

    quant_method = "gptq"
    suffixes = (".qweight",)

    def take(self, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> dict[str, IntegerWeight]:
        """Remove the integer weights; see `Layout.take`."""
        variant = settings.get("checkpoint_format") or settings.get("format") or "gptq"
        if settings.get("is_marlin_format"):
            variant = "marlin"
        if variant not in ("gptq", "gptq_v2"):
            raise UserError(f"{where}: checkpoint_format={variant}; of GPTQ's, gptq and gptq_v2 are read.")
        weights = {}
        for name in layers_with(tensors, ".qweight"):
            weight = IntegerWeight.from_tensors(name, tensors, settings)
            if variant == "gptq":
                weight = dataclasses.replace(weight, zeros=weight.zeros + 1)
                if weight.zeros.max() >= 2**weight.bits:
                    raise UserError(f"{where}: {name} has zero points that the format gptq cannot hold; gptq_v2 can.")
            weights[name] = weight
        return weights
