"""Entries of a codebook with a scale a block: the NF4 and FP4 of bitsandbytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from bitsure.quantize.weights.weight import Weight, WeightCodes

BITS = 4


@dataclass(frozen=True)
class QuantizedScales:
    """Scales that are quantized in turn, the double quantization of QLoRA: scale[b] ≈ codebook[codes[b]] · absmax + offset."""

    codes: torch.Tensor
    """(blocks,) uint8."""
    codebook: torch.Tensor
    """(256,) float32."""
    absmax: torch.Tensor
    """A scale for each `block_size` codes, float32."""
    block_size: int
    offset: float
    """The mean that was subtracted before the scales were quantized."""

    def dequantize(self) -> torch.Tensor:
        """Return the scales, (blocks,) float32."""
        return _look_up(self.codebook, self.codes, self.absmax, self.block_size) + self.offset

    @property
    def storage_bits(self) -> float:
        """Bits of the codes, their scales and the offset."""
        return self.codes.numel() * 8 + self.absmax.numel() * 32 + 32


@dataclass(frozen=True)
class CodebookWeight(Weight):
    """Entries of a codebook of 16: W[i] ≈ codebook[codes[i]] · absmax[i // block_size], with i counting through all rows.

    The blockwise format of QLoRA (Dettmers et al. 2023, equations 4 and 5): blocks run on from one row into the next.
    """

    suffix: ClassVar[str] = "weight.absmax"

    codes: torch.Tensor
    """Integers in [0, 16), (out, in) uint8."""
    codebook: torch.Tensor
    """(16,) float32; part of the format, so that it is not counted as storage."""
    absmax: torch.Tensor | QuantizedScales
    """A scale for each block, (blocks,) float32, or those quantized."""
    block_size: int

    def dequantize(self) -> torch.Tensor:
        """Return the matrix, (out, in) float32."""
        absmax = self.absmax.dequantize() if isinstance(self.absmax, QuantizedScales) else self.absmax
        return _look_up(self.codebook, self.codes, absmax, self.block_size)

    @property
    def storage_bits(self) -> float:
        """Bits of codes and scales."""
        scales = self.absmax.storage_bits if isinstance(self.absmax, QuantizedScales) else self.absmax.numel() * 32
        return self.codes.numel() * BITS + scales

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the layout of bitsandbytes: two codes a byte, the first in the upper half; settings as JSON in bytes."""
        kind = "nf4" if self.codebook[0] == -1 else "fp4"  # the first number of FP4 is 0
        pairs = torch.nn.functional.pad(self.codes.flatten(), (0, self.codes.numel() % 2)).view(-1, 2)
        state: dict[str, Any] = {
            "quant_type": kind,
            "blocksize": self.block_size,
            "dtype": "float32",
            "shape": list(self.codes.shape),
        }
        parts = {"weight": (pairs[:, :1] << 4) | pairs[:, 1:], "weight.quant_map": self.codebook}
        if isinstance(self.absmax, QuantizedScales):
            scales = self.absmax
            state |= {"nested_blocksize": scales.block_size, "nested_dtype": "float32", "nested_offset": scales.offset}
            parts |= {"weight.absmax": scales.codes, "weight.nested_absmax": scales.absmax}
            parts["weight.nested_quant_map"] = scales.codebook
        else:
            parts["weight.absmax"] = self.absmax
        parts[f"weight.quant_state.bitsandbytes__{kind}"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        return parts

    @classmethod
    def from_tensors(cls, name: str, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any]) -> Self:
        """Read the layout of bitsandbytes, which needs no settings besides those in its tensors."""
        inside = f"{name}.weight."
        part = {key.removeprefix(inside): tensors.pop(key) for key in list(tensors) if key.startswith(inside)}
        (state,) = (json.loads(bytes(value.tolist())) for key, value in part.items() if key.startswith("quant_state."))
        pairs = tensors.pop(f"{name}.weight").contiguous().view(torch.uint8).flatten()
        codes = torch.stack([pairs >> 4, pairs & 15], 1).flatten()
        out, width = state["shape"]
        absmax: torch.Tensor | QuantizedScales = part["absmax"].float()
        if "nested_absmax" in part:
            nested = part["nested_absmax"], state["nested_blocksize"], state.get("nested_offset", 0.0)
            absmax = QuantizedScales(part["absmax"], part["nested_quant_map"], *nested)
        return cls(codes[: out * width].view(out, width), part["quant_map"], absmax, state["blocksize"])

    def group_sizes(self) -> list[int]:
        """Return the block size."""
        return [self.block_size]

    def compressible_codes(self) -> WeightCodes:
        """Return the codes."""
        statistics = [self.absmax] if isinstance(self.absmax, torch.Tensor) else []
        if isinstance(self.absmax, QuantizedScales):
            statistics = [self.absmax.codes, self.absmax.absmax, torch.tensor(self.absmax.offset)]
        return WeightCodes(BITS, self.codes, self.codes.shape[1], self._blocks_of_rows, statistics)

    def _blocks_of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        width = self.codes.shape[1]
        blocks = (rows[:, None] * width + np.arange(width)) // self.block_size
        ids: NDArray[np.int64] = np.unique(blocks, return_inverse=True)[1].reshape(blocks.shape)
        return ids


def _look_up(codebook: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int) -> torch.Tensor:
    scales = absmax.repeat_interleave(block_size)[: codes.numel()].view_as(codes)
    return codebook[codes.long()] * scales
