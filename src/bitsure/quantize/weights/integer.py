"""Integers with a scale and a zero point a group: the format of round-to-nearest, GPTQ, AWQ and hqq."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.weights.grouped import GroupedWeight, number_of_bits
from bitsure.quantize.weights.packing import pack, unpack
from bitsure.quantize.weights.weight import WeightCodes

GPTQ_TENSORS = {"qweight", "qzeros", "scales", "g_idx"}


@dataclass(frozen=True, kw_only=True)
class IntegerWeight(GroupedWeight):
    """Integers: number(codes) is codes − zeros[o, g]. Codes are int32 in [0, 2**bits), scales floating-point numbers."""

    suffix: ClassVar[str] = "qweight"

    bits: int
    zeros: torch.Tensor
    """Zero points of the shape of scales: int32 in [0, 2**bits], or floating."""

    def _stored_numbers(self) -> torch.Tensor:
        numbers: torch.Tensor = self.scales.float()[:, self.group_of] * (self.codes - self.zeros[:, self.group_of])
        return numbers

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

    @property
    def is_symmetric(self) -> bool:
        """Whether every zero point is 2^(bits−1)."""
        return bool((self.zeros == 2 ** (self.bits - 1)).all())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the packed layout of GPTQ, and beside it what that has no room for."""
        parts = self._layout() | {"qweight": pack(self.codes.T, self.bits)}
        parts |= {"zeros": self.zeros} if self.zeros.is_floating_point() else {"qzeros": pack(self.zeros, self.bits).T}
        if self.width is not None or len(self.scales) != len(self.codes):
            parts["shape"] = self._shape()
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

    def compressible_codes(self) -> WeightCodes:
        """Return the integers."""
        return self._weight_codes(self.bits, self.zeros if self.zeros.is_floating_point() else self.zeros.to(torch.int16))


def _consecutive_groups(width: int, groups: int) -> torch.Tensor:
    return torch.arange(width) // -(-width // groups)
