"""Integers with a scale and a zero point a group: the format of round-to-nearest, GPTQ, AWQ and hqq."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.weights.packing import pack, unpack
from bitsure.quantize.weights.weight import (
    Weight,
    WeightCodes,
    grouped_rows,
    number_of_bits,
    scale_columns,
    sizes_of_groups,
)

GPTQ_TENSORS = {"qweight", "qzeros", "scales", "g_idx"}


@dataclass(frozen=True)
class IntegerWeight(Weight):
    """Integers: W[o, i] ≈ scales[o, g] · (codes[o, i] − zeros[o, g]) · input_scales[i] with g = group_of[i]."""

    suffix: ClassVar[str] = "qweight"

    bits: int
    codes: torch.Tensor
    """Integers in [0, 2**bits), (out, stored) int32; stored ≥ in, since the last group may be padded."""
    scales: torch.Tensor
    """(out, groups) floating, or (1, 1): one for the whole tensor."""
    zeros: torch.Tensor
    """Zero points of the shape of scales: int32 in [0, 2**bits], or floating."""
    group_of: torch.Tensor
    """The group of each stored column, (stored,) int64."""
    input_scales: torch.Tensor | None = None
    """What the layer's input is multiplied by before the codes see it, (in,) float16."""
    width: int | None = None
    """in, where it is less than stored."""

    def dequantize(self) -> torch.Tensor:
        """Return the matrix, (out, in) float32."""
        weight = self.scales.float()[:, self.group_of] * (self.codes - self.zeros[:, self.group_of])
        return scale_columns(weight[:, : self.width], self.input_scales)

    @property
    def storage_bits(self) -> float:
        """Bits of codes, scales and zero points; an integer zero point takes as many as a code."""
        zero_bits = self.zeros.element_size() * 8 if self.zeros.is_floating_point() else self.bits
        bits = self.codes.numel() * self.bits + self.scales.numel() * (self.scales.element_size() * 8 + zero_bits)
        return bits + number_of_bits(self.input_scales)

    @property
    def settings(self) -> dict[str, Any]:
        """The number of bits."""
        return {"bits": self.bits}

    @property
    def fits_gptq(self) -> bool:
        """Whether there are no input scales, no padding, one scale a row at least, and whole zero points."""
        return self.tensors().keys() <= GPTQ_TENSORS

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the packed layout of GPTQ, and beside it what that has no room for."""
        parts = {
            "scales": self.scales.T,
            "g_idx": self.group_of.to(torch.int32),
            "qweight": pack(self.codes.T, self.bits),
        }
        if self.zeros.is_floating_point():
            parts["zeros"] = self.zeros
        else:
            parts["qzeros"] = pack(self.zeros, self.bits).T
        if self.input_scales is not None:
            parts["input_scales"] = self.input_scales
        if self.width is not None or len(self.scales) != len(self.codes):
            parts["shape"] = torch.tensor([len(self.codes), self.width or self.codes.shape[1]])
        return parts

    @classmethod
    def from_tensors(cls, name: str, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any]) -> Self:
        """Read `tensors`, or a GPTQ checkpoint's: without g_idx groups follow each other. Zero points are taken as they are."""
        bits = int(settings["bits"])
        words, scales = tensors.pop(f"{name}.qweight"), tensors.pop(f"{name}.scales")
        packed_zeros, zeros = tensors.pop(f"{name}.qzeros", None), tensors.pop(f"{name}.zeros", None)
        group_of, shape = tensors.pop(f"{name}.g_idx", None), tensors.pop(f"{name}.shape", None)
        group_of = _consecutive_groups(len(words) * 32 // bits, len(scales)) if group_of is None else group_of.long()
        stored = len(group_of)
        if len(words) != -(-stored * bits // 32):
            raise UserError(
                f"{name} has {len(words)} × 32 bits for {stored} weights a row, which are not {bits} each. The checkpoint is "
                "damaged, or its settings are another's."
            )
        if zeros is None:
            if packed_zeros is None:
                raise UserError(f"{name} has neither zeros nor qzeros. The checkpoint is not complete.")
            zeros = unpack(packed_zeros.T, bits, scales.shape[1])
        width = stored if shape is None else int(shape[1])
        return cls(
            bits=bits,
            codes=unpack(words, bits, stored).T.contiguous(),
            scales=scales.T.contiguous(),
            zeros=zeros,
            group_of=group_of,
            input_scales=tensors.pop(f"{name}.input_scales", None),
            width=None if width == stored else width,
        )

    def group_sizes(self) -> list[int]:
        """Return the different numbers of weights that share a scale."""
        return sizes_of_groups(self.scales, self.codes, self.group_of)

    def compressible_codes(self) -> WeightCodes:
        """Return the integers."""
        zeros = self.zeros if self.zeros.is_floating_point() else self.zeros.to(torch.int16)
        statistics = [part for part in (self.scales, zeros, self.input_scales) if part is not None]
        out, stored = self.codes.shape
        groups = lambda rows: grouped_rows(rows, self.scales, self.group_of, out)  # noqa: E731
        return WeightCodes(self.bits, self.codes, self.width or stored, groups, statistics)

    def split_input_scales(self) -> tuple[Weight, torch.Tensor | None]:
        """Return the weight without its input scales, and those."""
        return dataclasses.replace(self, input_scales=None), self.input_scales


def _consecutive_groups(width: int, groups: int) -> torch.Tensor:
    return torch.arange(width) // -(-width // groups)
