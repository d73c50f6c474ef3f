"""AutoAWQ's `gemm` layout: qweight (in, out/8), qzeros (groups, out/8), scales (groups, out), nibbles shuffled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.layouts.layout import Layout, dynamic_settings, layers_with, mentioned
from bitsure.quantize.weights import IntegerWeight

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the nibble at place i of a word belongs to column ORDER[i] of its eight


class AwqLayout(Layout):
    """AutoAWQ's `gemm`."""

    quant_method = "awq"
    suffixes = (".qweight",)

    def take(self, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> dict[str, IntegerWeight]:
        """Remove the integer weights; see `Layout.take`."""
        version = settings.get("version") or settings.get("checkpoint_format") or settings.get("format") or "gemm"
        bits = settings.get("bits", settings.get("w_bit"))
        if str(version).lower() != "gemm" or bits != 4:
            raise UserError(f"{where}: version={str(version).lower()}, bits={bits}; of AWQ's, gemm in 4 bits is read.")
        return {name: _layer(name, tensors, where) for name in layers_with(tensors, ".qweight")}

    def leaves_out(self, layer: str, settings: Mapping[str, Any]) -> bool:
        """Return whether a layer is one that was not converted, or that gptqmodel's `dynamic` leaves out."""
        return mentioned(settings.get("modules_to_not_convert"), layer) or dynamic_settings(layer, settings) is None


def _layer(name: str, tensors: dict[str, torch.Tensor], where: Path) -> IntegerWeight:
    words, zeros, scales = (tensors.pop(f"{name}.{part}") for part in ("qweight", "qzeros", "scales"))
    codes = unshuffle(words)
    if codes.shape[1] != scales.shape[1] or len(codes) % len(scales):
        raise UserError(f"{where}: {name} has codes {tuple(codes.shape)} and scales {tuple(scales.shape)}, which do not fit.")
    return IntegerWeight(
        bits=4,
        codes=codes.T.contiguous(),
        scales=scales.T.contiguous(),
        zeros=unshuffle(zeros).T.contiguous(),
        group_of=torch.arange(len(codes)) // (len(codes) // len(scales)),
    )


def unshuffle(words: torch.Tensor) -> torch.Tensor:
    """Return the 4-bit integers of words (n, columns / 8) int32, as (n, columns) int32."""
    nibbles = (words[..., None] >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15
    columns = torch.empty_like(nibbles)
    columns[..., list(ORDER)] = nibbles
    return columns.flatten(1)
