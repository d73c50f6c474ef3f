"""The settings of GPTQ, which several libraries and our own code round by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import MISSING

from bitsure.base.errors import UserError, one_of
from bitsure.config.number_formats import BLOCKS
from bitsure.config.quantizers import CLIPS, Rounded


@dataclass
class GptqSettings(Rounded):
    """The settings of GPTQ (Frantar et al. 2023), whoever rounds."""

    backend: str = MISSING  # gptqmodel: the packed format that people deploy; native: our own; auto_gptq: the study's library
    desc_act: bool = MISSING  # act-order
    damp_percent: float = MISSING  # a fraction of the Hessian's mean diagonal

    def __post_init__(self) -> None:
        """Raise UserError for settings that contradict each other, or that the backend does not have."""
        super().__post_init__()
        one_of("quant.backend", self.backend, ("gptqmodel", "native", "auto_gptq"))
        if not 0 < self.damp_percent < 1:
            raise UserError(f"quant.damp_percent={self.damp_percent}: a fraction between 0 and 1, such as 0.01.")
        if self.desc_act and (clips := [transform for transform in self.transforms if transform in CLIPS]):
            raise UserError(
                f"quant.desc_act=true makes groups in another order than quant.transforms=[{clips[0]}] narrows them in: "
                f"leave one out."
            )
        if self.desc_act and self.format in BLOCKS:
            raise UserError(
                f"quant.desc_act=true: the blocks of {self.format} are of columns that lie side by side. Leave it out."
            )
        if self.backend != "native":
            self._check_library()

    @property
    def widths(self) -> Sequence[int]:
        """The bits that the backend has."""
        return super().widths if self.backend == "native" else (2, 3, 4, 8)

    def _check_bits(self) -> None:
        others = "" if self.backend == "native" else f" with quant.backend={self.backend}; native has 2 to 8"
        one_of("quant.bits", self.bits, self.widths, others)

    def _check_library(self) -> None:
        if self.format != "int" or self.activations or self.kv:
            raise UserError(
                f"quant.backend={self.backend} rounds weights to integers, calibrated on the full-precision model: "
                f"quant.format, quant.activations and quant.kv need quant.backend=native."
            )
        sizes = (-1, 16, 32, 64, 128, 256, 512, 1024)
        one_of("quant.group_size", self.group_size, sizes, f" with quant.backend={self.backend}; native has any")
        if self.transforms:
            raise UserError(f"quant.transforms={list(self.transforms)}: {self.backend} has none. Add quant.backend=native.")
        if self.remainder != "shorten":
            raise UserError(
                f"quant.remainder={self.remainder}: {self.backend} only shortens the last group. Add quant.backend=native."
            )

    @property
    def needs_data(self) -> bool:
        """True: the Hessian is of calibration text."""
        return True

    @property
    def rounding(self) -> str:
        """`gptq`."""
        return "gptq"

    @property
    def name(self) -> str:
        """As of `Rounded`, with act-order and the backend where they differ from the preset."""
        library = "" if self.backend == "gptqmodel" or self.format != "int" else f"-{self.backend.replace('_', '')}"
        return super().name + ("-actorder" if self.desc_act else "") + library
