"""llama.cpp's blocks, undecoded: codes and scales side by side, in one of its types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from bitsure.quantize.weights.weight import Weight


@dataclass(frozen=True)
class GgufWeight(Weight):
    """A matrix as a GGUF file stores it; a model's layers may have different types."""

    suffix: ClassVar[str] = "gguf_blocks"

    blocks: torch.Tensor
    """Bytes, shape (out, bytes of a row), uint8."""
    type: int
    """llama.cpp's number of the type, such as 12 for Q4_K."""

    def dequantize(self) -> torch.Tensor:
        """Return the matrix as the package `gguf` decodes it, (out, in) float32."""
        import gguf

        return torch.from_numpy(gguf.dequantize(self.blocks.numpy(), gguf.GGMLQuantizationType(self.type)))

    @property
    def storage_bits(self) -> float:
        """The bits of the blocks."""
        return 8.0 * self.blocks.numel()

    @property
    def is_coded(self) -> bool:
        """True."""
        return True

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the bytes and the number of their type."""
        return {"gguf_blocks": self.blocks, "gguf_type": torch.tensor(self.type)}

    @classmethod
    def from_tensors(cls, name: str, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any]) -> Self:
        """Read `tensors`."""
        return cls(tensors.pop(f"{name}.gguf_blocks"), int(tensors.pop(f"{name}.gguf_type").item()))
