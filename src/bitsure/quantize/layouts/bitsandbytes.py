"""The layout of bitsandbytes.

4 bits: weight (out·in/2, 1) uint8, the first of two codes in the upper half; weight.absmax, weight.quant_map (the codebook),
weight.quant_state.bitsandbytes__<type> (JSON), and weight.nested_* where absmax is quantized too. 8 bits: weight (out, in)
int8 and SCB (out,), the largest magnitude of each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.layouts.layout import Layout, layers_with, matches, mentioned
from bitsure.quantize.weights import CodebookWeight, IntegerWeight, Weight


class BitsandbytesLayout(Layout):
    """bitsandbytes' NF4, FP4 and LLM.int8()."""

    quant_method = "bitsandbytes"
    suffixes = (".weight.absmax", ".SCB")

    def take(self, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> dict[str, Weight]:
        """Remove the weights of 4 and of 8 bits; see `Layout.take`."""
        blockwise, rowwise = (layers_with(tensors, suffix) for suffix in self.suffixes)
        weights: dict[str, Weight] = {name: CodebookWeight.from_tensors(name, tensors, settings) for name in blockwise}
        return weights | {name: _rowwise(name, tensors, where) for name in rowwise}

    def leaves_out(self, layer: str, settings: Mapping[str, Any]) -> bool:
        """Return whether a layer is one that was not converted: by a part of its name, or by a regular expression."""
        skipped = settings.get("llm_int8_skip_modules") or ()
        return mentioned(skipped, layer) or any(matches(pattern, layer) for pattern in skipped)


def _rowwise(name: str, tensors: dict[str, torch.Tensor], where: Path) -> IntegerWeight:
    if tensors.pop(f"{name}.weight_format", torch.tensor(0)).item() != 0:
        raise UserError(
            f"{where}: {name} is stored in the tiles of one kind of GPU; of bitsandbytes' 8 bits, plain rows are read."
        )
    return from_rows(tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.SCB"))


def from_rows(weight: torch.Tensor, absmax: torch.Tensor) -> IntegerWeight:
    """Return the weight of LLM.int8(): signed integers (out, in) int8, of which ±127 is ±absmax (out,) of their row."""
    scales = absmax.float()[:, None] / 127
    zeros = torch.full_like(scales, 128, dtype=torch.int32)
    group_of = torch.zeros(weight.shape[1], dtype=torch.int64)
    return IntegerWeight(bits=8, codes=weight.to(torch.int32) + 128, scales=scales, zeros=zeros, group_of=group_of)
