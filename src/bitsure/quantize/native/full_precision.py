"""Full precision, with which every quantizer is compared."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.base.errors import UserError
from bitsure.quantize.quantizer import QuantizationJob, Quantizer


@dataclass
class NoQuant(Quantizer):
    """Full precision."""

    @property
    def name(self) -> str:
        """`none`."""
        return "none"

    @property
    def is_full_precision(self) -> bool:
        """True."""
        return True

    @property
    def has_noise_control(self) -> bool:
        """False: there is no error to match."""
        return False

    @property
    def has_packed_kernels(self) -> bool:
        """True: no weight is packed."""
        return True

    def quantize(self, job: QuantizationJob) -> None:
        """Raise UserError: full precision is not quantized."""
        raise UserError("quant=none: full precision is not quantized.")
