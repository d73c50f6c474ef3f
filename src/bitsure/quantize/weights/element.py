"""Numbers of a small floating-point format with a scale a group: MX formats and FP8."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from bitsure.config.number_formats import ELEMENTS, MX
from bitsure.quantize.weights.packing import pack, unpack
from bitsure.quantize.weights.small_floats import decode, power_of_two
from bitsure.quantize.weights.weight import (
    Weight,
    WeightCodes,
    grouped_rows,
    number_of_bits,
    scale_columns,
    sizes_of_groups,
)


@dataclass(frozen=True)
class ElementWeight(Weight):
    """Numbers of a small format: W[o, i] ≈ scales[o, g] · number(codes[o, i]) · input_scales[i] with g = group_of[i]."""

    suffix: ClassVar[str] = "elements"

    format: str
    """A key of `bitsure.config.number_formats.ELEMENTS`."""
    codes: torch.Tensor
    """The numbers' bits, (out, stored) uint8."""
    scales: torch.Tensor
    """(out, groups) float32, or (1, 1); of an MX format uint8: the exponent of a power of two + 127."""
    group_of: torch.Tensor
    """The group of each stored column, (stored,) int64."""
    input_scales: torch.Tensor | None = None
    """What the layer's input is multiplied by before the codes see it, (in,) float16."""
    width: int | None = None
    """in, where it is less than stored."""

    @property
    def bits(self) -> int:
        """Bits of a number."""
        return ELEMENTS[self.format].bits

    def dequantize(self) -> torch.Tensor:
        """Return the matrix, (out, in) float32."""
        scales = power_of_two(self.scales.int() - 127) if self.format in MX else self.scales
        weight = scales[:, self.group_of] * decode(self.codes, ELEMENTS[self.format])
        return scale_columns(weight[:, : self.width], self.input_scales)

    @property
    def storage_bits(self) -> float:
        """Bits of numbers and scales."""
        return self.codes.numel() * self.bits + number_of_bits(self.scales) + number_of_bits(self.input_scales)

    @property
    def settings(self) -> dict[str, Any]:
        """The format's name."""
        return {"elements": self.format}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the bits packed as the integers of GPTQ checkpoints are, (⌈stored·bits/32⌉, out) int32, and the rest."""
        parts = {
            "scales": self.scales.T,
            "g_idx": self.group_of.to(torch.int32),
            "elements": pack(self.codes.T, self.bits),
            "shape": torch.tensor([len(self.codes), self.width or self.codes.shape[1]]),
        }
        return parts if self.input_scales is None else parts | {"input_scales": self.input_scales}

    @classmethod
    def from_tensors(cls, name: str, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any]) -> Self:
        """Read `tensors`; `settings` name the format."""
        words, scales, group_of, shape = (tensors.pop(f"{name}.{part}") for part in ("elements", "scales", "g_idx", "shape"))
        stored, width = len(group_of), int(shape[1])
        return cls(
            format=settings["elements"],
            codes=unpack(words, ELEMENTS[settings["elements"]].bits, stored).T.to(torch.uint8).contiguous(),
            scales=scales.T.contiguous(),
            group_of=group_of.long(),
            input_scales=tensors.pop(f"{name}.input_scales", None),
            width=None if width == stored else width,
        )

    def group_sizes(self) -> list[int]:
        """Return the different numbers of weights that share a scale."""
        return sizes_of_groups(self.scales, self.codes, self.group_of)

    def compressible_codes(self) -> WeightCodes:
        """Return the numbers' bits."""
        statistics = [part for part in (self.scales, self.input_scales) if part is not None]
        out, stored = self.codes.shape
        groups = lambda rows: grouped_rows(rows, self.scales, self.group_of, out)  # noqa: E731
        return WeightCodes(self.bits, self.codes, self.width or stored, groups, statistics)

    def split_input_scales(self) -> tuple[Weight, torch.Tensor | None]:
        """Return the weight without its input scales, and those."""
        return dataclasses.replace(self, input_scales=None), self.input_scales
