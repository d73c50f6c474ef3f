"""Numbers of a small floating-point format with a scale a group: MX formats and FP8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from bitsure.config.number_formats import ELEMENTS, MX
from bitsure.quantize.weights.grouped import GroupedWeight, number_of_bits
from bitsure.quantize.weights.packing import pack, unpack
from bitsure.quantize.weights.small_floats import decode, power_of_two
from bitsure.quantize.weights.weight import WeightCodes


@dataclass(frozen=True, kw_only=True)
class ElementWeight(GroupedWeight):
    """Numbers of a small format, whose bits are the codes (uint8).

    Scales are float32, or of an MX format uint8: the exponent of a power of two + 127.
    """

    suffix: ClassVar[str] = "elements"

    format: str
    """A key of `bitsure.config.number_formats.ELEMENTS`."""

    @property
    def bits(self) -> int:
        """Bits of a number."""
        return ELEMENTS[self.format].bits

    def _stored_numbers(self) -> torch.Tensor:
        scales = power_of_two(self.scales.int() - 127) if self.format in MX else self.scales
        return scales[:, self.group_of] * decode(self.codes, ELEMENTS[self.format])

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
        return self._layout() | {"elements": pack(self.codes.T, self.bits), "shape": self._shape()}

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

    def compressible_codes(self) -> WeightCodes:
        """Return the numbers' bits."""
        return self._weight_codes(self.bits)
