"""HQQ (Badri & Shaji 2023, half-quadratic quantization) through hqq's own quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import MISSING

from bitsure.base import terminal
from bitsure.base.errors import UserError, one_of
from bitsure.quantize.quantizer import QuantizationJob, Quantizer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.weights import IntegerWeight


@dataclass
class Hqq(Quantizer):
    """HQQ (Badri & Shaji 2023): half-quadratic search for zero points, without data."""

    bits: int = MISSING
    group_size: int = MISSING  # −1: the whole row

    def __post_init__(self) -> None:
        """Raise UserError for bits or group sizes that hqq does not support."""
        one_of("quant.bits", self.bits, (2, 3, 4, 5, 6, 8))
        if self.group_size != -1 and (self.group_size < 8 or self.group_size % 8):
            raise UserError(f"quant.group_size={self.group_size}: hqq takes multiples of 8, and -1 for a whole row.")

    @property
    def name(self) -> str:
        """Bits, and the group size where it differs from the preset."""
        return f"hqq{self.bits}" + {64: "", -1: "-row"}.get(self.group_size, f"-g{self.group_size}")

    @property
    def has_integer_weights(self) -> bool:
        """False: zero points are fractions."""
        return False

    @property
    def changes_model(self) -> bool:
        """False."""
        return False

    def libraries(self) -> tuple[str, ...]:
        """Return torch and hqq."""
        return ("torch", "hqq")

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of packed codes with float16 scales and zero points."""
        from bitsure.quantize.checkpoint import disk_space

        return disk_space.packed_bytes(modules, self.bits, self.group_size, 4)

    def quantize(self, job: QuantizationJob) -> None:
        """Round every layer."""
        with terminal.output_to(job.log_file):
            job.write(dict(quantize(job.model, self)))


def quantize(model: nn.Module, quant: Hqq) -> dict[str, IntegerWeight]:
    """Return the model's layers as hqq rounds them, by name."""
    from bitsure.quantize.walk.targets import block_linears, matrix

    return {name: quantize_weight(matrix(layer), quant) for name, layer in block_linears(model).items()}


def quantize_weight(weight: torch.Tensor, quant: Hqq) -> IntegerWeight:
    """Return a weight (out, in) in groups along its rows (hqq's axis 1), scales and floating zero points in float16.

    If groups do not divide the width, hqq lets them continue from row to row; here the last group of a row is shorter.
    """
    import torch

    from bitsure.quantize.weights import IntegerWeight

    width = weight.shape[1]
    size = quant.group_size if quant.group_size > 0 else width
    parts = [part for part in weight.tensor_split([width // size * size], 1) if part.numel()]
    quantized = [_quantize(part, quant.bits, min(size, part.shape[1])) for part in parts]
    codes, scales, zeros = (torch.cat(tensors, 1) for tensors in zip(*quantized, strict=True))
    return IntegerWeight(bits=quant.bits, codes=codes, scales=scales, zeros=zeros, group_of=torch.arange(width) // size)


def _quantize(weight: torch.Tensor, bits: int, group_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return codes (out, in) int32, scales and zero points (out, groups) float16 of whole groups, with HQQLinear's settings."""
    import torch
    from hqq.core.quantize import BaseQuantizeConfig
    from hqq.core.quantize import Quantizer as HqqQuantizer

    settings = BaseQuantizeConfig(nbits=bits, group_size=None, axis=1)["weight_quant_params"] | {"group_size": group_size}
    codes, meta = HqqQuantizer.quantize(
        weight.detach().contiguous(), **settings, bitpack=False, device=weight.device, compute_dtype=torch.float16
    )
    rows = len(weight)
    return codes.view(rows, -1).to(torch.int32), meta["scale"].view(rows, -1).half(), meta["zero"].view(rows, -1).half()
