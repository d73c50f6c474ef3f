"""What the formats have in common whose scales belong to groups of columns."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from bitsure.quantize.weights.weight import Weight, WeightCodes


@dataclass(frozen=True, kw_only=True)
class GroupedWeight(Weight):
    """W[o, i] ≈ scales[o, g] · number(codes[o, i]) · input_scales[i] with g = group_of[i]."""

    codes: torch.Tensor
    """Integers of few bits, (out, stored); stored ≥ in, since the last group may be padded."""
    scales: torch.Tensor
    """(out, groups), or (1, 1): one for the whole tensor."""
    group_of: torch.Tensor
    """The group of each stored column, (stored,) int64."""
    input_scales: torch.Tensor | None = None
    """What the layer's input is multiplied by before the codes see it, (in,) float16."""
    width: int | None = None
    """in, where it is less than stored."""

    @abstractmethod
    def _stored_numbers(self) -> torch.Tensor:
        """Return scales[o, g] · number(codes[o, i]), (out, stored) float32."""

    def dequantize(self) -> torch.Tensor:
        """Return the matrix, (out, in) float32."""
        weight = self._stored_numbers()[:, : self.width]
        return weight if self.input_scales is None else weight * self.input_scales.float()

    def group_sizes(self) -> list[int]:
        """Return the different numbers of weights that share a scale."""
        if self.scales.numel() == 1:
            return [self.codes.numel()]
        return sorted(set(torch.bincount(self.group_of).tolist()))

    def split_input_scales(self) -> tuple[Self, torch.Tensor | None]:
        """Return the weight without its input scales, and those."""
        return dataclasses.replace(self, input_scales=None), self.input_scales

    def _weight_codes(self, bits: int, *statistics: torch.Tensor) -> WeightCodes:
        """Return the codes, with the format's own statistics between the scales and the input scales."""
        side_tensors = [self.scales, *statistics] + ([] if self.input_scales is None else [self.input_scales])
        return WeightCodes(bits, self.codes, self.width or self.codes.shape[1], self._groups_of_rows, side_tensors)

    def _groups_of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the group of each code of some rows, as `WeightCodes.groups`."""
        if len(self.scales) != len(self.codes):
            return np.zeros((1, 1), dtype=np.int64)
        ids: NDArray[np.int64] = np.arange(len(rows))[:, None] * self.scales.shape[1] + self.group_of.numpy()[None]
        return ids

    def _layout(self) -> dict[str, torch.Tensor]:
        """Return the tensors on disk that do not depend on the format."""
        parts = {"scales": self.scales.T, "g_idx": self.group_of.to(torch.int32)}
        return parts if self.input_scales is None else parts | {"input_scales": self.input_scales}

    def _shape(self) -> torch.Tensor:
        """Return (out, in)."""
        return torch.tensor([len(self.codes), self.width or self.codes.shape[1]])


def number_of_bits(tensor: torch.Tensor | None) -> int:
    """Return how many bits a tensor's numbers take; 0 of None."""
    return 0 if tensor is None else tensor.numel() * tensor.element_size() * 8
