"""Floating-point numbers as they are: a cast, a weight with noise on it, or the result of a method of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from bitsure.quantize.weights.weight import Weight


@dataclass(frozen=True)
class DenseWeight(Weight):
    """A matrix of floating-point numbers, with what a weight takes where the method is deployed.

    The simplest result of a quantizer of one's own: the values that the model computes with, and `bits` for the statistics.
    """

    suffix: ClassVar[str] = "dense"

    values: torch.Tensor
    """(out, in), any floating type."""
    bits: float | None = None
    """Bits a weight takes, scales and zero points counted; None: as many as the type of `values` has."""

    def dequantize(self) -> torch.Tensor:
        """Return the matrix, (out, in) float32."""
        return self.values.float()

    @property
    def storage_bits(self) -> float:
        """The number of weights times `bits`."""
        return self.values.numel() * (self.values.element_size() * 8 if self.bits is None else self.bits)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the values, and the bits where they are given."""
        parts = {"dense": self.values}
        return parts if self.bits is None else parts | {"dense_bits": torch.tensor(self.bits, dtype=torch.float64)}

    @classmethod
    def from_tensors(cls, name: str, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any]) -> Self:
        """Read `tensors`."""
        bits = tensors.pop(f"{name}.dense_bits", None)
        return cls(tensors.pop(f"{name}.dense"), None if bits is None else bits.item())
