"""The interface of a weight format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class WeightCodes:
    """The integers that a weight is made of, for measuring how far they compress."""

    bits: int
    """Bits of a code, 1 to 8."""
    codes: torch.Tensor
    """Integers in [0, 2**bits), shape (out, stored); stored ≥ in where a group is padded."""
    width: int
    """in: how many weights a row stands for."""
    groups: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    """From row numbers, shape (rows,), to the group of each of their codes, which broadcasts to (rows, stored)."""
    statistics: list[torch.Tensor]
    """Scales, zero points and the like, as they are stored."""


class Weight(ABC):
    """A quantized weight matrix (out, in).

    A subclass is a frozen dataclass whose fields are tensors and plain settings. It is written by `tensors` and `settings` and
    read by `from_tensors`; a checkpoint that does not come back bit for bit is refused. Every subclass that has been imported
    is found by its `suffix` when a checkpoint is read.
    """

    suffix: ClassVar[str]
    """The key of `tensors` that only this format has: it marks a layer of this format in a checkpoint."""

    @abstractmethod
    def dequantize(self) -> torch.Tensor:
        """Return the matrix, (out, in) float32."""

    @property
    @abstractmethod
    def storage_bits(self) -> float:
        """Bits that codes, scales and zero points take together, without the padding of packed words."""

    @abstractmethod
    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what is written to disk: what each tensor's name adds to the layer's name → tensor."""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the checkpoint, the same for all its layers, that `from_tensors` needs besides the tensors."""
        return {}

    @classmethod
    @abstractmethod
    def from_tensors(cls, name: str, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any]) -> Self:
        """Remove a layer's tensors from a checkpoint's and return the weight.

        Args:
            name: The layer's name.
            tensors: All tensors of the checkpoint, by full name.
            settings: The checkpoint's settings (quantize_config.json).

        Raises:
            UserError: If tensors and settings contradict each other.
        """

    @property
    def fits_gptq(self) -> bool:
        """Whether the tensors are exactly those of a GPTQ checkpoint, as an `IntegerWeight`'s may be."""
        return False

    def group_sizes(self) -> list[int]:
        """Return the different numbers of weights that share a scale; none if no scale is shared."""
        return []

    def compressible_codes(self) -> WeightCodes | None:
        """Return the integers that the weight is made of; None if it is not made of codes of at most 8 bits."""
        return None

    @property
    def is_coded(self) -> bool:
        """Whether it was read back as codes, which proves that weights that did not change are on their grid."""
        return self.compressible_codes() is not None

    def split_input_scales(self) -> tuple[Weight, torch.Tensor | None]:
        """Return the weight for inputs that are scaled already, and the scales, shape (in,); None if it has none."""
        return self, None
