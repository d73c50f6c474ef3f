"""Round to nearest, with or without transforms (AWQ, SmoothQuant, QLLM are chains of it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.config.quantizers import REWRITING, Tuning
from bitsure.quantize.native.chain_quantizer import RoundingQuantizer
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget

if TYPE_CHECKING:
    import torch

    from bitsure.quantize.weights import ElementWeight, IntegerWeight


@dataclass
class Rtn(RoundingQuantizer):
    """Round to nearest."""

    tuning: Tuning | None = None  # low-rank changes of the weights before rounding; not with scale or clip

    def __post_init__(self) -> None:
        """Raise UserError for settings that contradict each other; treat tuning without a rank as none."""
        super().__post_init__()
        self.tuning = None if self.tuning is None or self.tuning.rank is None else self.tuning
        if self.tuning and (others := [transform for transform in self.transforms if transform not in REWRITING]):
            raise UserError(
                f"quant.tuning changes the weights that quant.transforms=[{others[0]}] is computed for: leave one of them out."
            )

    @property
    def rounding(self) -> str:
        """`rtn`."""
        return "rtn"

    @property
    def needs_data(self) -> bool:
        """Whether a transform, a fixed range or tuning takes calibration text."""
        return super().needs_data or self.tuning is not None

    def check(self, target: QuantizationTarget) -> None:
        """Raise UserError for tuning of a mixture of experts, and for what the model's keys and values rule out."""
        super().check(target)
        if self.tuning and target.has_experts:
            raise UserError(
                f"quant.tuning learns a block as a whole, and the experts of {target.source.name} are quantized one by one. "
                "Leave quant.tuning out."
            )

    @property
    def block_tuning(self) -> Tuning | None:
        """How each block is tuned before its weights are rounded."""
        return self.tuning

    @property
    def name(self) -> str:
        """As of `Rounded`, with the tuning."""
        return super().name + (self.tuning.label if self.tuning else "")

    def round_weight(
        self, weight: torch.Tensor, hessian: torch.Tensor, shrink: tuple[torch.Tensor, ...], names: str
    ) -> IntegerWeight | ElementWeight:
        """Round each number to the nearest of its group's grid."""
        from bitsure.quantize.native.rounding import round_to_nearest

        return round_to_nearest(weight, self, shrink)

    def quantize(self, job: QuantizationJob) -> None:
        """Quantize block by block."""
        from bitsure.quantize.native import chain

        chain.quantize(job.model, self, job.windows, job.parts, job.directory, job.advance)
