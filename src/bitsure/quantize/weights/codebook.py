"""Entries of a codebook with a scale a block: the NF4 and FP4 of bitsandbytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from bitsure.quantize.weights.grouped import number_of_bits
from bitsure.quantize.weights.weight import Weight, WeightCodes

BITS = 4


@dataclass(frozen=True)
class QuantizedScales:
    """How scales are quantized in turn, the double quantization of QLoRA: scale[b] ≈ codebook[code[b]] · absmax + offset."""

    codebook: torch.Tensor
    """(256,) float32."""
    absmax: torch.Tensor
    """A scale for each `block_size` codes, float32."""
    block_size: int
    offset: float
    """The mean that was subtracted before the scales were quantized."""

    def dequantize(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the scales (blocks,) float32 of their codes (blocks,) uint8."""
        return _look_up(self.codebook, codes, self.absmax, self.block_size) + self.offset


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
    absmax: torch.Tensor
    """A scale for each block, (blocks,) float32, or their codes in `nested`, uint8."""
    block_size: int
    nested: QuantizedScales | None = None
    """How the scales are quantized."""

    def dequantize(self) -> torch.Tensor:
        """Return the matrix, (out, in) float32."""
        absmax = self.absmax if self.nested is None else self.nested.dequantize(self.absmax)
        return _look_up(self.codebook, self.codes, absmax, self.block_size)

    @property
    def storage_bits(self) -> float:
        """Bits of codes, of scales and of what quantized scales need."""
        return self.codes.numel() * BITS + sum(number_of_bits(part) for part in self._statistics())

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
        parts = {
            "weight": (pairs[:, :1] << 4) | pairs[:, 1:],
            "weight.quant_map": self.codebook,
            "weight.absmax": self.absmax,
        }
        if (nested := self.nested) is not None:
            state |= {"nested_blocksize": nested.block_size, "nested_dtype": "float32", "nested_offset": nested.offset}
            parts |= {"weight.nested_absmax": nested.absmax, "weight.nested_quant_map": nested.codebook}
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
        absmax, nested = part["absmax"], None
        if "nested_absmax" in part:
            nested = QuantizedScales(
                part["nested_quant_map"], part["nested_absmax"], state["nested_blocksize"], state.get("nested_offset", 0.0)
            )
        else:
            absmax = absmax.float()
        return cls(codes[: out * width].view(out, width), part["quant_map"], absmax, state["blocksize"], nested)

    def group_sizes(self) -> list[int]:
        """Return the block size."""
        return [self.block_size]

    def compressible_codes(self) -> WeightCodes:
        """Return the codes."""
        return WeightCodes(BITS, self.codes, self.codes.shape[1], self._blocks_of_rows, self._statistics())

    def _statistics(self) -> list[torch.Tensor]:
        if self.nested is None:
            return [self.absmax]
        return [self.absmax, self.nested.absmax, torch.tensor(self.nested.offset)]

    def _blocks_of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        width = self.codes.shape[1]
        blocks = (rows[:, None] * width + np.arange(width)) // self.block_size
        ids: NDArray[np.int64] = np.unique(blocks, return_inverse=True)[1].reshape(blocks.shape)
        return ids


def _look_up(codebook: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, block_size: int) -> torch.Tensor:
    scales = absmax.repeat_interleave(block_size)[: codes.numel()].view_as(codes)
    return codebook[codes.long()] * scales
