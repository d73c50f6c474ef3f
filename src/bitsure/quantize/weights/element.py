"""Numbers of a small format with a scale a group: MX formats, FP8, NVFP4 and integers with scales in FP8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from bitsure.config.number_formats import E4M3, ELEMENTS, MX
from bitsure.quantize.weights.grouped import GroupedWeight, number_of_bits
from bitsure.quantize.weights.packing import pack, unpack
from bitsure.quantize.weights.small_floats import decode, power_of_two
from bitsure.quantize.weights.weight import WeightCodes


@dataclass(frozen=True, kw_only=True)
class ElementWeight(GroupedWeight):
    """Numbers of a small format, whose bits are the codes (uint8).

    Scales are float32; of an MX format uint8, the exponent of a power of two + 127; with `tensor_scale` uint8, the bits of FP8.
    """

    suffix: ClassVar[str] = "elements"

    format: str
    """A key of `bitsure.config.number_formats.ELEMENTS`."""
    tensor_scale: torch.Tensor | None = None
    """What the groups' scales are divided by, shape (), float32; None in formats without one."""

    @property
    def bits(self) -> int:
        """Bits of a number."""
        return ELEMENTS[self.format].bits

    def _stored_numbers(self) -> torch.Tensor:
        scales = self.scales
        if self.tensor_scale is not None:
            scales = decode(scales, E4M3) / self.tensor_scale
        elif self.format in MX:
            scales = power_of_two(scales.int() - 127)
        return scales[:, self.group_of] * decode(self.codes, ELEMENTS[self.format])

    @property
    def storage_bits(self) -> float:
        """Bits of numbers and scales."""
        return self.codes.numel() * self.bits + sum(map(number_of_bits, (self.scales, self.input_scales, self.tensor_scale)))

    @property
    def settings(self) -> dict[str, Any]:
        """The format's name."""
        return {"elements": self.format}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the bits packed as the integers of GPTQ checkpoints are, (⌈stored·bits/32⌉, out) int32, and the rest."""
        parts = self._layout() | {"elements": pack(self.codes.T, self.bits), "shape": self._shape()}
        return parts if self.tensor_scale is None else parts | {"tensor_scale": self.tensor_scale}

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
            tensor_scale=tensors.pop(f"{name}.tensor_scale", None),
            width=None if width == stored else width,
        )

    def compressible_codes(self) -> WeightCodes:
        """Return the numbers' bits."""
        return self._weight_codes(self.bits)
